-- name: waiting
-- $1: tenant; $2: priority; $3: interactive; $4: position; $5: how many
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM task
  WHERE tenant = $1 AND priority = $2 AND interactive = $3 AND n >= $4 AND state = 0 AND due IS NULL
  ORDER BY n LIMIT $5 FOR UPDATE SKIP LOCKED
) AS task;

-- name: waiting_classic
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM task
  WHERE tenant = $1 AND priority = $2 AND interactive = $3 AND n >= $4 AND state = 0 AND due IS NULL AND classic = 1
  ORDER BY n LIMIT $5 FOR UPDATE SKIP LOCKED
) AS task;

-- name: waiting_oldest
-- $1: tenant; $2: position; $3: how many
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM task WHERE tenant = $1 AND n >= $2 AND state = 0 AND due IS NULL
  ORDER BY n LIMIT $3 FOR UPDATE SKIP LOCKED
) AS task;

-- name: waiting_by_number
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM task WHERE n = ANY ($1::bigint[]) AND state = 0 AND due IS NULL ORDER BY n FOR UPDATE SKIP LOCKED
) AS task;

-- name: oldest_from
-- As waiting_oldest, for those who only look: number, and when it began to wait
SELECT coalesce(json_agg(json_build_array(n, changed)), '[]')::text FROM (
  SELECT n, changed FROM task WHERE tenant = $1 AND n >= $2 AND state = 0 AND due IS NULL ORDER BY n LIMIT 1
) AS task;

-- name: lanes
-- The lanes in which tasks of a tenant wait, each with the first of them: one look at the index for each.
WITH RECURSIVE lane AS (
  (SELECT priority, interactive, n FROM task WHERE tenant = $1 AND state = 0 AND due IS NULL
   ORDER BY priority, interactive, n LIMIT 1)
  UNION ALL
  SELECT following.* FROM lane CROSS JOIN LATERAL (
    SELECT priority, interactive, n FROM task
    WHERE tenant = $1 AND state = 0 AND due IS NULL
      AND (priority, interactive) > (lane.priority, lane.interactive)
    ORDER BY priority, interactive, n LIMIT 1
  ) AS following
)
SELECT coalesce(json_agg(json_build_array(priority, interactive, n)), '[]')::text FROM lane;

-- name: classic_lanes
WITH RECURSIVE lane AS (
  (SELECT priority, interactive, n FROM task WHERE tenant = $1 AND state = 0 AND due IS NULL AND classic = 1
   ORDER BY priority, interactive, n LIMIT 1)
  UNION ALL
  SELECT following.* FROM lane CROSS JOIN LATERAL (
    SELECT priority, interactive, n FROM task
    WHERE tenant = $1 AND state = 0 AND due IS NULL AND classic = 1
      AND (priority, interactive) > (lane.priority, lane.interactive)
    ORDER BY priority, interactive, n LIMIT 1
  ) AS following
)
SELECT coalesce(json_agg(json_build_array(priority, interactive, n)), '[]')::text FROM lane;

-- name: held_by
-- $1: worker; $2: the number of the change from which its leases are
SELECT coalesce(json_agg(:task), '[]')::text FROM task WHERE worker = $1 AND seq >= $2 AND state + 0 = 1;

-- name: holdings
SELECT coalesce(json_object_agg(worker, held), '{}')::text FROM (
  SELECT worker, count(*) AS held FROM task WHERE state = 1 GROUP BY worker
) AS held;

-- name: extend
-- $1: numbers of tasks; $2: expiry; $3: lease duration in milliseconds
UPDATE task SET expires = $2, lease_duration = $3
WHERE n IN (SELECT value::bigint FROM json_array_elements_text($1::json));

-- name: extend_all
UPDATE task SET expires = $1 + lease_duration WHERE state = 1;

-- name: cap_leases
UPDATE task SET expires = $1 + lease_duration WHERE state = 1 AND expires > $1 + lease_duration;

-- name: cap_delays
-- $1: the latest time at which a delayed task may fall due; those from 2^52 on never do (rows.HOLD)
UPDATE task SET due = $1 WHERE state = 0 AND due IS NOT NULL AND due > $1 AND due < 4503599627370496;

-- name: cap_deliveries
UPDATE delivery SET due = $1 WHERE due > $1;

-- name: expired
-- $1, $2: times between which they expired; $3: how many
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM task WHERE state = 1 AND expires > $1 AND expires <= $2
  ORDER BY expires LIMIT $3 FOR UPDATE SKIP LOCKED
) AS task;

-- name: first_expiry
SELECT expires FROM task WHERE state = 1 AND expires > $1 ORDER BY expires LIMIT 1;

-- name: due_now
-- $1, $2: times between which they fell due; $3: how many
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM task WHERE state = 0 AND due IS NOT NULL AND due > $1 AND due <= $2
  ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED
) AS task;

-- name: fall_due
-- This is not an event, since the task keeps waiting.
UPDATE task SET due = NULL WHERE n IN (SELECT value::bigint FROM json_array_elements_text($1::json));

-- name: due_at
-- $1: the time; $2: how many
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM task WHERE state = 0 AND due IS NOT NULL AND due = $1 LIMIT $2
) AS task;

-- name: put_off
UPDATE task SET due = $2 WHERE n IN (SELECT value::bigint FROM json_array_elements_text($1::json));

-- name: first_delayed
SELECT due FROM task WHERE state = 0 AND due IS NOT NULL AND due > $1 ORDER BY due LIMIT 1;
