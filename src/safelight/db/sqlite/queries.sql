-- The statements of the SQLite backend, each below its name.
-- Rows are read as one JSON array of arrays, and written many at once in place of `:rows`; connection.py says why.

-- name: insert_tasks
INSERT INTO task (
  n, state, seq, changed, due, attempts, errors, deaths, classic_deaths, lease, expires, lease_duration, worker, settled,
  settled_as, outputs, failure, engine, seconds, key, created, priority, classic, internal, spec, recipe, input, input_size,
  filename, media_type, batch, idempotency_key, webhook, reused
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

-- name: delete_tasks
DELETE FROM task WHERE n IN (SELECT value FROM json_each(?1));

-- name: insert_events
INSERT INTO event (
  seq, at, n, key, state, recipe, batch, internal, attempt, worker, kind, failure, seconds
)
VALUES :rows;

-- name: tasks_by_number
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM json_each(?1) AS wanted CROSS JOIN task ON task.n = wanted.value
);

-- name: tasks_by_idempotency_key
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM json_each(?1) AS wanted CROSS JOIN task INDEXED BY task_idempotency
  ON task.idempotency_key = wanted.value
);

-- name: finished_alike
-- ?1: pairs of input and spec; ?2: engine
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task WHERE n IN (
    SELECT (
      SELECT n FROM task INDEXED BY task_result
      WHERE state = 2 AND outputs IS NOT NULL
        AND input = wanted.value->>0 AND spec = wanted.value->>1 AND engine = ?2
      LIMIT 1
    )
    FROM json_each(?1) AS wanted
  )
);

-- name: waiting
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_waiting
  WHERE state = 0 AND due IS NULL ORDER BY priority DESC, n LIMIT ?1
);

-- name: waiting_oldest
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_oldest
  WHERE state = 0 AND due IS NULL ORDER BY n LIMIT ?1
);

-- name: waiting_classic
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_classic
  WHERE state = 0 AND due IS NULL AND classic = 1 ORDER BY priority DESC, n LIMIT ?1
);

-- name: held_by
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_worker WHERE state = 1 AND worker = ?1
);

-- name: holdings
SELECT json_group_object(worker, held) FROM (
  SELECT worker, count(*) AS held FROM task INDEXED BY task_worker WHERE state = 1 GROUP BY worker
);

-- name: extend
-- ?1: numbers of tasks; ?2: expiry; ?3: lease duration in milliseconds
UPDATE task SET expires = ?2, lease_duration = ?3 WHERE n IN (SELECT value FROM json_each(?1));

-- name: extend_all
UPDATE task SET expires = max(expires, ?1 + lease_duration) WHERE n IN (
  SELECT n FROM task INDEXED BY task_expires WHERE state = 1
);

-- name: expired
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_expires WHERE state = 1 AND expires <= ?1 ORDER BY expires LIMIT ?2
);

-- name: first_expiry
SELECT expires FROM task INDEXED BY task_expires WHERE state = 1 ORDER BY expires LIMIT 1;

-- name: fall_due
-- This is no event: the task was waiting before, and is waiting now.
UPDATE task SET due = NULL WHERE n IN (
  SELECT n FROM task INDEXED BY task_delayed WHERE state = 0 AND due IS NOT NULL AND due <= ?1 ORDER BY due LIMIT ?2
);

-- name: first_delayed
SELECT due FROM task INDEXED BY task_delayed WHERE state = 0 AND due IS NOT NULL ORDER BY due LIMIT 1;

-- name: oldest_waiting
SELECT changed FROM task INDEXED BY task_oldest WHERE state = 0 AND due IS NULL ORDER BY n LIMIT 1;

-- name: ended_before
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_ended WHERE state >= 2 AND changed < ?1 ORDER BY changed LIMIT ?2
);

-- name: first_ended
SELECT changed FROM task INDEXED BY task_ended WHERE state >= 2 ORDER BY changed LIMIT 1;

-- name: uploading_before
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM (SELECT * FROM task INDEXED BY task_state WHERE state = -1 ORDER BY n LIMIT ?2)
  WHERE created < ?1
);

-- name: first_uploading
SELECT created FROM task INDEXED BY task_state WHERE state = -1 ORDER BY n LIMIT 1;

-- name: find
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task WHERE n < ?1 AND internal = ?3 ORDER BY n DESC LIMIT ?2
);

-- name: find_by_state
-- ?3: internal; ?4: state; ?5: recipe or NULL
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_state
  WHERE state = ?4 AND n < ?1 AND internal = ?3 AND (?5 IS NULL OR recipe = ?5) ORDER BY n DESC LIMIT ?2
);

-- name: find_by_recipe
-- ?3: internal; ?4: recipe
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_recipe
  WHERE recipe = ?4 AND n < ?1 AND internal = ?3 ORDER BY n DESC LIMIT ?2
);

-- name: find_by_batch
-- ?3: internal; ?4: batch; ?5: recipe or NULL; ?6: states as a JSON array or NULL
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task INDEXED BY task_batch
  WHERE batch <> '' AND batch = ?4 AND n < ?1 AND internal = ?3 AND (?5 IS NULL OR recipe = ?5)
    AND (?6 IS NULL OR state IN (SELECT value FROM json_each(?6)))
  ORDER BY n DESC LIMIT ?2
);

-- name: tasks_after
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (SELECT as_json FROM task WHERE n > ?1 ORDER BY n LIMIT ?2);

-- name: first_task
SELECT n FROM task ORDER BY n LIMIT 1;

-- name: events_after
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (SELECT as_json FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2);

-- name: task_events_after
-- ?3: number of the task
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM event INDEXED BY event_task WHERE n = ?3 AND seq > ?1 ORDER BY seq LIMIT ?2
);

-- name: last_event_before
-- ?1: a time; ?2: how many of the oldest to look at
SELECT max(seq) FROM (SELECT seq, at FROM event ORDER BY seq LIMIT ?2) WHERE at < ?1;

-- name: first_event_time
SELECT at FROM event ORDER BY seq LIMIT 1;

-- name: delete_events
DELETE FROM event WHERE seq <= ?1;

-- name: counts
SELECT json_group_array(json_array(state, held)) FROM (
  SELECT state, count(*) AS held FROM task INDEXED BY task_state GROUP BY state
);

-- name: count_delayed
SELECT count(*) FROM task INDEXED BY task_delayed WHERE state = 0 AND due IS NOT NULL;

-- name: last_number
-- ?1: task, event or delivery
SELECT seq FROM sqlite_sequence WHERE name = ?1;

-- name: meta
SELECT value FROM meta WHERE name = ?1;

-- name: set_meta
INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2;

-- name: spec
SELECT json_array(digest, body) FROM spec WHERE id = ?1;

-- name: spec_by_digest
SELECT id FROM spec WHERE digest = ?1;

-- name: keep_spec
INSERT INTO spec (digest, body, until) VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO UPDATE SET until = ?3;

-- name: delete_specs
DELETE FROM spec WHERE until < ?1;

-- name: insert_delivery
INSERT INTO delivery (created, due, url, attempt, task) VALUES (?1, ?1, ?2, 0, ?3);

-- name: due_deliveries
SELECT json_group_array(json_array(n, url, attempt, json(task))) FROM (
  SELECT * FROM delivery INDEXED BY delivery_due WHERE due <= ?1 ORDER BY due, n LIMIT ?2
);

-- name: take_deliveries
-- ?1: pairs of number and token; ?2: when it is due again if nobody settles it
UPDATE delivery SET due = ?2, attempt = attempt + 1, token = taken.token
FROM (SELECT value->>0 AS n, value->>1 AS token FROM json_each(?1)) AS taken
WHERE delivery.n = taken.n;

-- name: delay_delivery
-- ?1: number; ?2: attempt; ?3: token; ?4: when it is due again
UPDATE delivery SET due = ?4, token = NULL WHERE n = ?1 AND attempt = ?2 AND token = ?3;

-- name: delete_delivery
DELETE FROM delivery WHERE n = ?1 AND attempt = ?2 AND token = ?3;

-- name: delete_old_deliveries
DELETE FROM delivery WHERE n IN (SELECT n FROM (SELECT n, created FROM delivery ORDER BY n LIMIT ?2) WHERE created < ?1);

-- name: next_delivery
SELECT due FROM delivery INDEXED BY delivery_due WHERE due > ?1 ORDER BY due LIMIT 1;

-- name: first_delivery_created
SELECT created FROM delivery ORDER BY n LIMIT 1;

-- name: count_deliveries
SELECT count(*) FROM delivery;

-- name: recipes
SELECT json_group_array(json_array(name, spec, changed)) FROM (SELECT * FROM recipe ORDER BY name);

-- name: save_recipe
INSERT INTO recipe (name, spec, changed) VALUES (?1, ?2, ?3)
ON CONFLICT (name) DO UPDATE SET spec = ?2, changed = ?3;

-- name: delete_recipe
DELETE FROM recipe WHERE name = ?1;

-- name: searched_to
-- ?1: number below which a search begins; ?2: how many tasks it looks at. Nothing where fewer are left.
SELECT json_group_array(json_array(n, key)) FROM (SELECT n, key FROM task WHERE n < ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2);

-- name: search
-- ?1, ?2: numbers between which to look; ?3: internal; ?4: batch; ?5: lower-case text; ?6, ?7: creation; ?8: states as
-- a JSON array; ?9: recipe; ?10: code of the failure; each NULL where it does not matter; ?11: how many rows
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT as_json FROM task
  WHERE n < ?1 AND n >= ?2 AND internal = ?3 AND (?4 IS NULL OR batch = ?4)
    AND (?5 IS NULL OR instr(lower(filename), ?5) OR instr(n || '-' || key, ?5) = 1)
    AND (?6 IS NULL OR created >= ?6) AND (?7 IS NULL OR created < ?7)
    AND (?8 IS NULL OR state IN (SELECT value FROM json_each(?8)))
    AND (?9 IS NULL OR recipe = ?9) AND (?10 IS NULL OR failure->>'code' = ?10)
  ORDER BY n DESC LIMIT ?11
);

-- name: count_matching
-- As search, without what is counted apart.
SELECT json_group_array(json_array(state, recipe, reason, held)) FROM (
  SELECT state, recipe, CASE WHEN state IN (3, 4) THEN failure->>'code' END AS reason, count(*) AS held FROM task
  WHERE n < ?1 AND n >= ?2 AND internal = ?3 AND (?4 IS NULL OR batch = ?4)
    AND (?5 IS NULL OR instr(lower(filename), ?5) OR instr(n || '-' || key, ?5) = 1)
    AND (?6 IS NULL OR created >= ?6) AND (?7 IS NULL OR created < ?7)
  GROUP BY state, recipe, reason
);

-- name: batch_names
-- ?1: number below which the newest task of a batch is; ?2: how many; ?3: the only name, or NULL
SELECT json_group_array(json_array(batch, newest)) FROM (
  SELECT batch, max(n) AS newest FROM task INDEXED BY task_batch
  WHERE batch <> '' AND (?3 IS NULL OR batch = ?3) GROUP BY batch HAVING newest < ?1 ORDER BY newest DESC LIMIT ?2
);

-- name: batches
-- ?1: names
SELECT json_group_array(json_array(batch, state, held, created, changed, size)) FROM (
  SELECT batch, state, count(*) AS held, min(created) AS created, max(changed) AS changed,
    sum(coalesce(input_size, 0)) AS size
  FROM json_each(?1) AS wanted CROSS JOIN task INDEXED BY task_batch
  ON task.batch <> '' AND task.batch = wanted.value
  GROUP BY batch, state
);
