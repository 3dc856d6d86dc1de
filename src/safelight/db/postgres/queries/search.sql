-- name: find
-- $1: tenant; $2: below which number; $3: how many; $4: internal; $5: from which number, also in those that follow
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM every_task WHERE tenant = $1 AND n < $2 AND n >= $5 AND internal = $4 ORDER BY n DESC LIMIT $3
) AS task;

-- name: find_by_state
-- $6: state; $7: recipe or NULL
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM every_task
  WHERE tenant = $1 AND state = $6 AND n < $2 AND n >= $5 AND internal = $4 AND ($7::text IS NULL OR recipe = $7::text)
  ORDER BY n DESC LIMIT $3
) AS task;

-- name: find_by_recipe
-- $6: recipe
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM every_task
  WHERE tenant = $1 AND recipe = $6 AND n < $2 AND n >= $5 AND internal = $4 ORDER BY n DESC LIMIT $3
) AS task;

-- name: find_by_batch
-- $6: batch; $7: recipe or NULL; $8: states as a JSON array or NULL
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM every_task
  WHERE tenant = $1 AND batch <> '' AND batch = $6 AND n < $2 AND n >= $5 AND internal = $4
    AND ($7::text IS NULL OR recipe = $7::text)
    AND ($8::json IS NULL OR state IN (SELECT value::int FROM json_array_elements_text($8::json)))
  ORDER BY n DESC LIMIT $3
) AS task;

-- name: searched_to
-- $1: tenant; $2: number below which a search begins; $3: how many tasks it looks at. No row if fewer are left.
SELECT coalesce(json_agg(json_build_array(n, key)), '[]')::text FROM (
  SELECT n, key FROM every_task WHERE tenant = $1 AND n < $2 ORDER BY n DESC LIMIT 1 OFFSET $3
) AS task;

-- name: searched_to_by_state
-- As searched_to, among the tasks in a state, $4.
SELECT coalesce(json_agg(json_build_array(n, key)), '[]')::text FROM (
  SELECT n, key FROM every_task WHERE tenant = $1 AND state = $4 AND n < $2 ORDER BY n DESC LIMIT 1 OFFSET $3
) AS task;

-- name: searched_to_by_recipe
-- $4: recipe
SELECT coalesce(json_agg(json_build_array(n, key)), '[]')::text FROM (
  SELECT n, key FROM every_task WHERE tenant = $1 AND recipe = $4 AND n < $2 ORDER BY n DESC LIMIT 1 OFFSET $3
) AS task;

-- name: searched_to_by_batch
-- $4: batch
SELECT coalesce(json_agg(json_build_array(n, key)), '[]')::text FROM (
  SELECT n, key FROM every_task
  WHERE tenant = $1 AND batch <> '' AND batch = $4 AND n < $2 ORDER BY n DESC LIMIT 1 OFFSET $3
) AS task;

-- name: search
-- $1, $2: numbers between which to look; $3: internal; $4: batch; $5: lower-case text; $6, $7: creation; $8: states as
-- a JSON array; $9: recipe; $10: code of the failure; NULL for no filter; $11: how many rows; $12: tenant;
-- $13: a pattern for the text in either case, or NULL if `lower` knows the case of all of it
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM every_task
  WHERE tenant = $12 AND n < $1 AND n >= $2 AND internal = $3 AND ($4::text IS NULL OR batch = $4::text)
    AND ($5::text IS NULL OR strpos(lower(filename), $5::text) > 0 OR filename ~ $13::text
      OR strpos(n || '-' || key, $5::text) = 1)
    AND ($6::bigint IS NULL OR created >= $6::bigint) AND ($7::bigint IS NULL OR created < $7::bigint)
    AND ($8::json IS NULL OR state IN (SELECT value::int FROM json_array_elements_text($8::json)))
    AND ($9::text IS NULL OR recipe = $9::text) AND ($10::text IS NULL OR failure->>'code' = $10::text)
  ORDER BY n DESC LIMIT $11
) AS task;

-- name: count_matching
-- As search, without the filters that are counted separately; $8: tenant; $9: pattern
SELECT coalesce(json_agg(json_build_array(state, recipe, reason, held)), '[]')::text FROM (
  SELECT state, recipe, CASE WHEN state IN (3, 4) THEN failure->>'code' END AS reason, count(*) AS held
  FROM every_task
  WHERE tenant = $8 AND n < $1 AND n >= $2 AND internal = $3 AND ($4::text IS NULL OR batch = $4::text)
    AND ($5::text IS NULL OR strpos(lower(filename), $5::text) > 0 OR filename ~ $9::text
      OR strpos(n || '-' || key, $5::text) = 1)
    AND ($6::bigint IS NULL OR created >= $6::bigint) AND ($7::bigint IS NULL OR created < $7::bigint)
  GROUP BY state, recipe, reason
) AS counted;

-- name: batch_names
-- $1: tenant; $2: number below which the newest task of a batch is; $3: how many
SELECT coalesce(json_agg(json_build_array(batch, newest, held)), '[]')::text FROM (
  SELECT batch, max(n) AS newest, count(*) AS held FROM every_task
  WHERE tenant = $1 AND batch <> ''
  GROUP BY batch HAVING max(n) < $2 ORDER BY newest DESC LIMIT $3
) AS named;

-- name: batches
-- $1: tenant; $2: names; $3: number of the first task to count
SELECT coalesce(json_agg(json_build_array(batch, state, held, created, changed, size)), '[]')::text FROM (
  SELECT batch, state, count(*) AS held, min(created) AS created, max(changed) AS changed,
    sum(coalesce(input_size, 0))::bigint AS size
  FROM every_task
  WHERE tenant = $1 AND batch <> '' AND batch IN (SELECT value FROM json_array_elements_text($2::json))
    AND n >= $3
  GROUP BY batch, state
) AS counted;
