-- The statements of the SQLite backend, each below its name.
-- Rows are read as one JSON array of arrays, and written many at once in place of `:rows`; connection.py says why, and
-- what `:task` and `:event` stand for.

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

-- name: insert_events
INSERT INTO event (
  seq, at, n, key, state, recipe, batch, internal, tenant, attempt, worker, kind, failure, seconds
)
VALUES :rows;

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

-- name: tasks_after
SELECT '[' || coalesce(group_concat(as_json), '') || ']' FROM (SELECT :task AS as_json FROM task WHERE n > ?1 ORDER BY n LIMIT ?2);

-- name: first_task
SELECT n FROM task ORDER BY n LIMIT 1;

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

-- name: insert_delivery
INSERT INTO delivery (created, due, url, attempt, task, tenant) VALUES (?1, ?2, ?3, 0, ?4, ?5);

-- name: due_deliveries
-- ?1: now; ?2: how many of each tenant, those first that fell due first
WITH RECURSIVE owner (tenant) AS (
  SELECT (SELECT tenant FROM delivery INDEXED BY delivery_tenant ORDER BY tenant LIMIT 1)
  UNION ALL
  SELECT (
    SELECT tenant FROM delivery INDEXED BY delivery_tenant WHERE tenant > owner.tenant ORDER BY tenant LIMIT 1
  ) FROM owner WHERE owner.tenant IS NOT NULL
)
SELECT json_group_array(json_array(delivery.n, delivery.tenant, delivery.due)) FROM owner JOIN delivery ON delivery.n IN (
  SELECT n FROM delivery INDEXED BY delivery_tenant WHERE tenant = owner.tenant AND due <= ?1 ORDER BY due, n LIMIT ?2
);

-- name: deliveries_by_number
SELECT json_group_array(json_array(n, url, attempt, json(task))) FROM delivery WHERE n IN (SELECT value FROM json_each(?1));

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
SELECT json_group_array(json_array(name, changed, size)) FROM (
  SELECT name, changed, size FROM recipe WHERE tenant = ?1 ORDER BY name
);

-- name: recipe
SELECT json_array(spec, changed) FROM recipe WHERE tenant = ?1 AND name = ?2;

-- name: other_recipes
SELECT json_array(count(*), coalesce(sum(size), 0)) FROM recipe WHERE tenant = ?1 AND name <> ?2;

-- name: recipe_changed
SELECT changed FROM recipe INDEXED BY recipe_listed WHERE tenant = ?1 AND name = ?2;

-- name: save_recipe
INSERT INTO recipe (tenant, name, spec, changed, size) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (tenant, name) DO UPDATE SET spec = ?3, changed = ?4, size = ?5;

-- name: delete_recipe
DELETE FROM recipe WHERE tenant = ?1 AND name = ?2;

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

-- name: tenants
SELECT '[' || coalesce(group_concat(body), '') || ']' FROM tenant;

-- name: keep_tenant
INSERT INTO tenant (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = ?2;

-- name: delete_tenant_of_tenant
DELETE FROM tenant WHERE id = ?1;

-- name: delete_tenant_use_of_tenant
DELETE FROM tenant_use WHERE tenant = ?1;

-- name: delete_api_keys_of_tenant
DELETE FROM api_key WHERE tenant = ?1;

-- name: delete_sessions_of_tenant
DELETE FROM session WHERE tenant = ?1;

-- name: delete_signing_keys_of_tenant
DELETE FROM signing_key WHERE tenant = ?1;

-- name: delete_recipes_of_tenant
DELETE FROM recipe WHERE tenant = ?1;

-- name: api_keys
SELECT '[' || coalesce(group_concat(body), '') || ']'
FROM (SELECT body FROM api_key WHERE ?1 IS NULL OR tenant = ?1 ORDER BY rowid);

-- name: api_key
SELECT body FROM api_key WHERE id = ?1;

-- name: keep_api_key
INSERT INTO api_key (id, tenant, body) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = ?3;

-- name: session
SELECT body FROM session WHERE id = ?1 AND expires > ?2;

-- name: insert_session
INSERT INTO session (id, tenant, expires, body) VALUES (?1, ?2, ?3, ?4);

-- name: delete_session
DELETE FROM session WHERE id = ?1;

-- name: delete_old_sessions
DELETE FROM session WHERE id IN (SELECT id FROM session INDEXED BY session_expires WHERE expires <= ?1 LIMIT ?2);

-- name: ticket
SELECT body FROM ticket WHERE id = ?1 AND expires > ?2;

-- name: insert_ticket
INSERT INTO ticket (id, expires, body) VALUES (?1, ?2, ?3);

-- name: delete_ticket
DELETE FROM ticket WHERE id = ?1;

-- name: delete_old_tickets
DELETE FROM ticket WHERE id IN (SELECT id FROM ticket INDEXED BY ticket_expires WHERE expires <= ?1 LIMIT ?2);

-- name: signing_keys
SELECT '[' || coalesce(group_concat(body), '') || ']' FROM (
  SELECT body FROM signing_key WHERE tenant = ?1 ORDER BY n DESC
);

-- name: insert_signing_key
INSERT INTO signing_key (tenant, body) VALUES (?1, ?2);

-- name: insert_audit
INSERT INTO audit (at, tenant, body) VALUES (?1, ?2, ?3);

-- name: audit
SELECT json_group_array(json_array(seq, at, json(body))) FROM (
  SELECT * FROM audit WHERE seq > ?1 AND (?3 IS NULL OR tenant = ?3) ORDER BY seq LIMIT ?2
);

-- name: last_audit
SELECT coalesce(max(seq), 0) FROM audit;

-- name: delete_old_audit
DELETE FROM audit WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM audit ORDER BY seq LIMIT ?2) WHERE at < ?1);

-- name: statistics_at
-- ?1: pairs of tenant and slot
SELECT json_group_array(json_array(tenant, slot, json(body))) FROM (
  SELECT statistic.* FROM json_each(?1) AS wanted CROSS JOIN statistic
  ON statistic.tenant = wanted.value->>0 AND statistic.slot = wanted.value->>1
);

-- name: statistics
-- ?1: tenant; ?2: first slot
SELECT json_group_array(json_array(tenant, slot, json(body))) FROM statistic WHERE tenant = ?1 AND slot >= ?2;

-- name: keep_statistic
INSERT INTO statistic (tenant, slot, body) VALUES (?1, ?2, ?3) ON CONFLICT (tenant, slot) DO UPDATE SET body = ?3;

-- name: delete_statistics
DELETE FROM statistic WHERE slot < ?1;

-- name: delete_statistics_of_tenant
DELETE FROM statistic WHERE tenant = ?1;

-- name: delivery
-- ?1: number; ?2: attempt; ?3: token
SELECT json_array(created, url, json(task)) FROM delivery WHERE n = ?1 AND attempt = ?2 AND token = ?3;

-- name: hasten_delivery
-- ?1: number; ?2: now. A call in progress does not change.
UPDATE delivery SET due = ?2 WHERE n = ?1 AND token IS NULL;

-- name: keep_webhook_call
INSERT INTO webhook_call (n, tenant, at, body, task) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (n) DO UPDATE SET tenant = ?2, at = ?3, body = ?4, task = ?5;

-- name: trim_webhook_calls
-- ?1: tenant; ?2: how many to keep
DELETE FROM webhook_call WHERE tenant = ?1 AND n <= (
  SELECT n FROM webhook_call WHERE tenant = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2
);

-- name: webhook_calls
-- ?1: tenant; ?2: below which number; ?3: how many; ?4: outcome or NULL
SELECT '[' || coalesce(group_concat(body), '') || ']' FROM (
  SELECT body FROM webhook_call INDEXED BY webhook_call_tenant
  WHERE tenant = ?1 AND n < ?2 AND (?4 IS NULL OR body->>'outcome' = ?4) ORDER BY n DESC LIMIT ?3
);

-- name: webhook_call
-- ?1: number; ?2: tenant
SELECT json_array(json(body), json(task)) FROM webhook_call WHERE n = ?1 AND tenant = ?2;

-- name: delete_old_webhook_calls
DELETE FROM webhook_call WHERE n IN (SELECT n FROM (SELECT n, at FROM webhook_call ORDER BY n LIMIT 500) WHERE at < ?1);

-- name: delete_deliveries_of_tenant
DELETE FROM delivery WHERE tenant = ?1;

-- name: delete_webhook_calls_of_tenant
DELETE FROM webhook_call WHERE tenant = ?1;
