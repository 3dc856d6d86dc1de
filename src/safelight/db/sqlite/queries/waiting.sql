-- name: waiting
-- ?1: tenant
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_waiting
  WHERE tenant = ?1 AND state = 0 AND due IS NULL ORDER BY priority DESC, interactive DESC, n LIMIT ?2
);

-- name: waiting_oldest
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_oldest
  WHERE tenant = ?1 AND state = 0 AND due IS NULL ORDER BY n LIMIT ?2
);

-- name: waiting_classic
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_classic
  WHERE tenant = ?1 AND state = 0 AND due IS NULL AND classic = 1
  ORDER BY priority DESC, interactive DESC, n LIMIT ?2
);

-- name: held_by
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_worker WHERE state = 1 AND worker = ?1
);

-- name: holdings
SELECT json_group_object(worker, held) FROM (
  SELECT worker, count(*) AS held FROM task INDEXED BY task_worker WHERE state = 1 GROUP BY worker
);

-- name: extend
-- ?1: numbers of tasks; ?2: expiry; ?3: lease duration in milliseconds
UPDATE task SET expires = ?2, lease_duration = ?3 WHERE n IN (SELECT value FROM json_each(?1));

-- name: extend_all
UPDATE task SET expires = ?1 + lease_duration WHERE n IN (
  SELECT n FROM task INDEXED BY task_expires WHERE state = 1
);

-- name: cap_delays
-- ?1: the latest time at which a delayed task may fall due; those from 2^52 on never do (rows.HOLD)
UPDATE task SET due = ?1 WHERE n IN (
  SELECT n FROM task INDEXED BY task_delayed WHERE state = 0 AND due IS NOT NULL AND due > ?1 AND due < 4503599627370496
);

-- name: cap_deliveries
UPDATE delivery SET due = ?1 WHERE due > ?1;

-- name: expired
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_expires WHERE state = 1 AND expires <= ?1 ORDER BY expires LIMIT ?2
);

-- name: first_expiry
SELECT expires FROM task INDEXED BY task_expires WHERE state = 1 ORDER BY expires LIMIT 1;

-- name: due_now
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_delayed
  WHERE state = 0 AND due IS NOT NULL AND due <= ?1 ORDER BY due LIMIT ?2
);

-- name: fall_due
-- This is not an event, since the task keeps waiting.
UPDATE task SET due = NULL WHERE n IN (SELECT value FROM json_each(?1));

-- name: due_at
-- ?1: the time; ?2: how many
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :task AS as_json FROM task INDEXED BY task_delayed WHERE state = 0 AND due IS NOT NULL AND due = ?1 LIMIT ?2
);

-- name: put_off
UPDATE task SET due = ?2 WHERE n IN (SELECT value FROM json_each(?1));

-- name: first_delayed
SELECT due FROM task INDEXED BY task_delayed WHERE state = 0 AND due IS NOT NULL ORDER BY due LIMIT 1;
