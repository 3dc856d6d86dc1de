-- name: insert_events
INSERT INTO event (
  seq, at, n, key, state, recipe, batch, internal, tenant, attempt, worker, kind, failure, seconds
)
VALUES :rows;

-- name: events_after
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (SELECT :event AS as_json FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2);

-- name: tenant_events_after
-- ?3: the last number to look at; ?4: tenant
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :event AS as_json FROM event WHERE seq > ?1 AND seq <= ?3 AND tenant = ?4 ORDER BY seq LIMIT ?2
);

-- name: task_events_after
-- ?3: number of the task
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (
  SELECT :event AS as_json FROM event INDEXED BY event_task WHERE n = ?3 AND seq > ?1 ORDER BY seq LIMIT ?2
);

-- name: last_event_before
-- ?1: a time; ?2: how many of the oldest to look at
SELECT max(seq) FROM (SELECT seq, at FROM event ORDER BY seq LIMIT ?2) WHERE at < ?1;

-- name: first_event_time
SELECT at FROM event ORDER BY seq LIMIT 1;

-- name: delete_events
DELETE FROM event WHERE seq <= ?1;
