-- name: insert_events
INSERT INTO event (:event_columns) SELECT * FROM unnest(:event_arrays);

-- name: events_after
SELECT coalesce(json_agg(:event), '[]')::text FROM (
  SELECT * FROM event WHERE seq > $1 ORDER BY seq LIMIT $2
) AS event;

-- name: tenant_events_after
-- $3: the last number to look at; $4: tenant
SELECT coalesce(json_agg(:event), '[]')::text FROM (
  SELECT * FROM event WHERE seq > $1 AND seq <= $3 AND tenant = $4 ORDER BY seq LIMIT $2
) AS event;

-- name: task_events_after
-- $3: number of the task
SELECT coalesce(json_agg(:event), '[]')::text FROM (
  SELECT * FROM event WHERE n = $3 AND seq > $1 ORDER BY seq LIMIT $2
) AS event;
