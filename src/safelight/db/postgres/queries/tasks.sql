-- Statements of the PostgreSQL backend about tasks, each below its name. In all files here:
-- * `coalesce(tenant, '')`, `state + 0` and `OFFSET 0` leave the planner one index; migrations/0004_indexes.sql,
--   0006_numbers.sql and 0007_ended_indexes.sql say why.
-- * `:task` and `:event` are a row as a JSON array, `:task_columns` and so on the names of its columns, and
--   `:task_arrays` the columns of many rows as arrays; sessions/connection.py makes them from rows.TaskRow and
--   rows.EventRow.

-- name: insert_tasks
INSERT INTO task (:task_columns) SELECT * FROM unnest(:task_arrays);

-- name: insert_ended
INSERT INTO ended (:task_columns) SELECT * FROM unnest(:task_arrays);

-- name: update_tasks
-- `ANY (ARRAY[new.n])`, not `=`, leaves the planner one way to join: look each row up in the primary key. By `=` it
-- compares each new row with each of the table's that the commit changes.
UPDATE task SET (:task_changing) = ROW (:task_new)
FROM unnest(:task_changing_arrays) AS new (n, :task_changing) WHERE task.n = ANY (ARRAY[new.n]);

-- name: end_tasks
WITH gone AS (
  DELETE FROM task USING unnest(:task_changing_arrays) AS new (n, :task_changing)
  WHERE task.n = ANY (ARRAY[new.n])
  RETURNING new.n, :task_new, :task_fixed
)
INSERT INTO ended (:task_columns) SELECT * FROM gone;

-- name: delete_tasks
DELETE FROM task WHERE n = ANY ($1::bigint[]);

-- name: delete_ended
DELETE FROM ended WHERE n = ANY ($1::bigint[]);

-- name: live_by_number
SELECT coalesce(json_agg(:task), '[]')::text FROM task WHERE n = ANY ($1::bigint[]);

-- name: ended_by_number
SELECT coalesce(json_agg(:task), '[]')::text FROM ended WHERE n = ANY ($1::bigint[]);

-- name: tasks_by_idempotency_key
SELECT coalesce(json_agg(:task), '[]')::text
FROM (SELECT value->>0 AS t, value->>1 AS k FROM json_array_elements($1::json)) AS wanted
CROSS JOIN LATERAL (
  SELECT * FROM every_task WHERE idempotency_key = k AND idempotency_key IS NOT NULL AND coalesce(tenant, '') = t OFFSET 0
) AS task;

-- name: finished_alike
-- $1: tenant, input and spec of each; $2: engine
SELECT coalesce(json_agg(:task), '[]')::text
FROM (SELECT value->>0 AS t, value->>1 AS i, (value->>2)::bigint AS s FROM json_array_elements($1::json)) AS wanted
CROSS JOIN LATERAL (
  SELECT * FROM ended
  WHERE state = 2 AND outputs IS NOT NULL AND coalesce(tenant, '') = t AND input = i AND spec = s AND engine = $2 LIMIT 1
) AS alike;

-- name: read_ahead
-- As tasks_by_idempotency_key ($1), finished_alike ($2, $3), live_by_number ($4) and held_by ($5: pairs of worker and
-- number), for all calls of a commit.
SELECT json_build_array(
  (SELECT json_agg(:task)
   FROM (SELECT value->>0 AS t, value->>1 AS k FROM json_array_elements($1::json)) AS wanted
   CROSS JOIN LATERAL (
     SELECT * FROM every_task WHERE idempotency_key = k AND idempotency_key IS NOT NULL AND coalesce(tenant, '') = t OFFSET 0
   ) AS task),
  (SELECT json_agg(:task)
   FROM (SELECT value->>0 AS t, value->>1 AS i, (value->>2)::bigint AS s FROM json_array_elements($2::json)) AS wanted
   CROSS JOIN LATERAL (
     SELECT * FROM ended
     WHERE state = 2 AND outputs IS NOT NULL AND coalesce(tenant, '') = t AND input = i AND spec = s AND engine = $3 LIMIT 1
   ) AS alike),
  (SELECT json_agg(:task) FROM task WHERE n = ANY ($4::bigint[])),
  (SELECT json_agg(:task)
   FROM (SELECT value->>0 AS w, (value->>1)::bigint AS since FROM json_array_elements($5::json)) AS wanted
   CROSS JOIN LATERAL (SELECT * FROM task WHERE worker = w AND seq >= since AND state + 0 = 1 OFFSET 0) AS held)
);

-- name: uploading_before
-- $1: a time; $2: how many; $3: number from which to look
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM (SELECT * FROM task WHERE state = -1 AND n >= $3 ORDER BY n LIMIT $2) AS oldest WHERE created < $1
) AS task;

-- name: tasks_after
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM every_task WHERE n > $1 ORDER BY n LIMIT $2
) AS task;

-- name: first_task
SELECT min(n) FROM every_task;

-- name: spec_digest
SELECT to_json(digest)::text FROM spec WHERE id = $1;

-- name: spec_body
SELECT to_json(body)::text FROM spec WHERE id = $1;

-- name: spec_by_digest
SELECT id FROM spec WHERE digest = $1;

-- name: keep_spec
INSERT INTO spec (digest, body, until) VALUES ($1, $2, $3)
ON CONFLICT (digest) DO UPDATE SET until = greatest(spec.until, excluded.until);

-- name: delete_specs
DELETE FROM spec WHERE until < $1;
