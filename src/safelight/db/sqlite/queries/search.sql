-- name: find
-- ?1: tenant; ?2: below which number; ?3: how many; ?4: internal; ?5: from which number, also in those that follow
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_tenant
  WHERE tenant = ?1 AND n < ?2 AND n >= ?5 AND internal = ?4 ORDER BY n DESC LIMIT ?3
);

-- name: find_by_state
-- ?6: state; ?7: recipe or NULL
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_state
  WHERE tenant = ?1 AND state = ?6 AND n < ?2 AND n >= ?5 AND internal = ?4 AND (?7 IS NULL OR recipe = ?7)
  ORDER BY n DESC LIMIT ?3
);

-- name: find_by_recipe
-- ?6: recipe
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_recipe
  WHERE tenant = ?1 AND recipe = ?6 AND n < ?2 AND n >= ?5 AND internal = ?4 ORDER BY n DESC LIMIT ?3
);

-- name: find_by_batch
-- ?6: batch; ?7: recipe or NULL; ?8: states as a JSON array or NULL
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_batch
  WHERE tenant = ?1 AND batch <> '' AND batch = ?6 AND n < ?2 AND n >= ?5 AND internal = ?4
    AND (?7 IS NULL OR recipe = ?7) AND (?8 IS NULL OR state IN (SELECT value FROM json_each(?8)))
  ORDER BY n DESC LIMIT ?3
);

-- name: searched_to
-- ?1: tenant; ?2: number below which a search begins; ?3: how many tasks it looks at. No row if fewer are left.
SELECT json_group_array(json_array(n, key)) FROM (
  SELECT n, key FROM task INDEXED BY task_tenant WHERE tenant = ?1 AND n < ?2 ORDER BY n DESC LIMIT 1 OFFSET ?3
);

-- name: searched_to_by_state
-- As searched_to, among the tasks in a state, ?4.
SELECT json_group_array(json_array(n, key)) FROM (
  SELECT n, key FROM task INDEXED BY task_state
  WHERE tenant = ?1 AND state = ?4 AND n < ?2 ORDER BY n DESC LIMIT 1 OFFSET ?3
);

-- name: searched_to_by_recipe
-- ?4: recipe
SELECT json_group_array(json_array(n, key)) FROM (
  SELECT n, key FROM task INDEXED BY task_recipe
  WHERE tenant = ?1 AND recipe = ?4 AND n < ?2 ORDER BY n DESC LIMIT 1 OFFSET ?3
);

-- name: searched_to_by_batch
-- ?4: batch
SELECT json_group_array(json_array(n, key)) FROM (
  SELECT n, key FROM task INDEXED BY task_batch
  WHERE tenant = ?1 AND batch <> '' AND batch = ?4 AND n < ?2 ORDER BY n DESC LIMIT 1 OFFSET ?3
);

-- name: search
-- ?1, ?2: numbers between which to look; ?3: internal; ?4: batch; ?5: lower-case text; ?6, ?7: creation; ?8: states as
-- a JSON array; ?9: recipe; ?10: code of the failure; NULL for no filter; ?11: how many rows; ?12: tenant;
-- ?13: a pattern for the text in either case, or NULL if `lower` knows the case of all of it
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_tenant
  WHERE tenant = ?12 AND n < ?1 AND n >= ?2 AND internal = ?3 AND (?4 IS NULL OR batch = ?4)
    AND (?5 IS NULL OR instr(lower(filename), ?5) OR filename GLOB '*' || ?13 || '*' OR instr(n || '-' || key, ?5) = 1)
    AND (?6 IS NULL OR created >= ?6) AND (?7 IS NULL OR created < ?7)
    AND (?8 IS NULL OR state IN (SELECT value FROM json_each(?8)))
    AND (?9 IS NULL OR recipe = ?9) AND (?10 IS NULL OR failure->>'code' = ?10)
  ORDER BY n DESC LIMIT ?11
);

-- name: count_matching
-- As search, without the filters that are counted separately; ?8: tenant; ?9: pattern
SELECT json_group_array(json_array(state, recipe, reason, held)) FROM (
  SELECT state, recipe, CASE WHEN state IN (3, 4) THEN failure->>'code' END AS reason, count(*) AS held
  FROM task INDEXED BY task_tenant
  WHERE tenant = ?8 AND n < ?1 AND n >= ?2 AND internal = ?3 AND (?4 IS NULL OR batch = ?4)
    AND (?5 IS NULL OR instr(lower(filename), ?5) OR filename GLOB '*' || ?9 || '*' OR instr(n || '-' || key, ?5) = 1)
    AND (?6 IS NULL OR created >= ?6) AND (?7 IS NULL OR created < ?7)
  GROUP BY state, recipe, reason
);

-- name: batch_names
-- ?1: tenant; ?2: number below which the newest task of a batch is; ?3: how many
SELECT json_group_array(json_array(batch, newest, held)) FROM (
  SELECT batch, max(n) AS newest, count(*) AS held FROM task INDEXED BY task_batch
  WHERE tenant = ?1 AND batch <> ''
  GROUP BY batch HAVING newest < ?2 ORDER BY newest DESC LIMIT ?3
);

-- name: batches
-- ?1: tenant; ?2: names; ?3: number of the first task to count
SELECT json_group_array(json_array(batch, state, held, created, changed, size)) FROM (
  SELECT batch, state, count(*) AS held, min(created) AS created, max(changed) AS changed,
    sum(coalesce(input_size, 0)) AS size
  FROM json_each(?2) AS wanted CROSS JOIN task INDEXED BY task_batch
  ON task.tenant = ?1 AND task.batch <> '' AND task.batch = wanted.value AND task.n >= ?3
  GROUP BY batch, state
);
