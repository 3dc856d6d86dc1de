-- Statements of the SQLite backend about tasks, each below its name. In all files here, rows are read as one JSON array
-- of arrays, and written many at once in place of `:rows`; connection.py says why, and what `:task` and `:event` stand
-- for.

-- name: insert_tasks
INSERT INTO task (
  n, state, seq, changed, due, attempts, errors, deaths, classic_deaths, lease, expires, lease_duration, worker, settled,
  settled_as, outputs, failure, engine, seconds, key, created, priority, classic, internal, interactive, tenant,
  spec, recipe, input, input_size,
  filename, media_type, batch, idempotency_key, webhook, reused, traceparent
)
VALUES :rows;

-- name: update_tasks
-- The columns before `key`; the others never change.
UPDATE task SET
  state = new.column2, seq = new.column3, changed = new.column4, due = new.column5, attempts = new.column6,
  errors = new.column7, deaths = new.column8, classic_deaths = new.column9, lease = new.column10,
  expires = new.column11, lease_duration = new.column12, worker = new.column13, settled = new.column14,
  settled_as = new.column15, outputs = new.column16, failure = new.column17, engine = new.column18,
  seconds = new.column19
FROM (VALUES :rows) AS new
WHERE task.n = new.column1;

-- name: lease_tasks
-- The columns of a task that a lease changes.
UPDATE task SET
  state = new.column2, seq = new.column3, changed = new.column4, attempts = new.column5, lease = new.column6,
  expires = new.column7, lease_duration = new.column8, worker = new.column9
FROM (VALUES :rows) AS new
WHERE task.n = new.column1;

-- name: delete_tasks
DELETE FROM task WHERE n IN (SELECT value FROM json_each(?1));

-- name: tasks_by_number
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM json_each(?1) AS wanted CROSS JOIN task ON task.n = wanted.value
);

-- name: tasks_by_idempotency_key
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM json_each(?1) AS wanted CROSS JOIN task INDEXED BY task_idempotency
  ON task.tenant = wanted.value->>0 AND task.idempotency_key = wanted.value->>1
);

-- name: finished_alike
-- ?1: tenant, input and spec of each; ?2: engine
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task WHERE n IN (
    SELECT (
      SELECT n FROM task INDEXED BY task_result
      WHERE state = 2 AND outputs IS NOT NULL
        AND tenant = wanted.value->>0 AND input = wanted.value->>1 AND spec = wanted.value->>2 AND engine = ?2
      LIMIT 1
    )
    FROM json_each(?1) AS wanted
  )
);

-- name: oldest_waiting
SELECT changed FROM task INDEXED BY task_oldest
WHERE tenant = ?1 AND state = 0 AND due IS NULL ORDER BY n LIMIT 1;

-- name: ended_before
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_ended WHERE state >= 2 AND changed < ?1 ORDER BY changed LIMIT ?2
);

-- name: first_ended
SELECT changed FROM task INDEXED BY task_ended WHERE state >= 2 ORDER BY changed LIMIT 1;

-- name: uploading_before
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task
  WHERE n IN (SELECT n FROM task INDEXED BY task_uploading WHERE state = -1 ORDER BY n LIMIT ?2) AND created < ?1
);

-- name: first_uploading
SELECT created FROM task INDEXED BY task_uploading WHERE state = -1 ORDER BY n LIMIT 1;

-- name: tasks_after
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (SELECT :task AS as_json FROM task WHERE n > ?1 ORDER BY n LIMIT ?2);

-- name: first_task
SELECT n FROM task ORDER BY n LIMIT 1;

-- name: counts
SELECT json_group_array(json_array(tenant, state, held)) FROM (
  SELECT tenant, state, count(*) AS held FROM task INDEXED BY task_state GROUP BY tenant, state
);

-- name: count_delayed
-- Those from 2^52 on are held back (rows.HOLD).
SELECT json_group_array(json_array(tenant, delayed, held)) FROM (
  SELECT tenant, count(*) AS delayed, sum(due >= 4503599627370496) AS held
  FROM task INDEXED BY task_delayed WHERE state = 0 AND due IS NOT NULL GROUP BY tenant
);

-- name: kept_bytes
SELECT json_group_array(json_array(tenant, bytes)) FROM tenant_use;

-- name: keep_bytes
INSERT INTO tenant_use (tenant, bytes) VALUES (?1, ?2) ON CONFLICT (tenant) DO UPDATE SET bytes = ?2;

-- name: last_number
-- ?1: task, event or delivery
SELECT seq FROM sqlite_sequence WHERE name = ?1;

-- name: meta
SELECT value FROM meta WHERE name = ?1;

-- name: set_meta
INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2;

-- name: spec_digest
SELECT json_quote(digest) FROM spec WHERE id = ?1;

-- name: spec_body
SELECT json_quote(body) FROM spec WHERE id = ?1;

-- name: spec_by_digest
SELECT id FROM spec WHERE digest = ?1;

-- name: keep_spec
INSERT INTO spec (digest, body, until) VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO UPDATE SET until = ?3;

-- name: delete_specs
DELETE FROM spec WHERE until < ?1;
