-- The statements of the PostgreSQL backend, each below its name. `coalesce(tenant, '')`, `state + 0` and `OFFSET 0` leave
-- the planner one index; migrations/0004_indexes.sql, 0006_numbers.sql and 0007_ended_indexes.sql say why.
-- `:task` and `:event` are a row as a JSON array, `:task_columns` and so on the names of its columns, and
-- `:task_arrays` the columns of many rows as arrays; connection.py makes them from rows.TaskRow and rows.EventRow.

-- name: schema_version
SELECT version FROM schema_version;

-- name: refresh
-- $1: the last commit that is known. The time is read once the lock is held, so it grows from commit to commit.
SELECT json_build_array(
  (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
  (SELECT json_agg(json_build_array(version, entry::json)) FROM (
    SELECT version, entry FROM ledger WHERE version > $1 ORDER BY version LIMIT 1000
  ) AS entries)
)::text;

-- name: refresh_and_read_ahead
-- As read_ahead ($1 to $5) and refresh ($6), when a commit begins.
SELECT json_build_array(
  (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
  (SELECT json_agg(json_build_array(version, entry::json)) FROM (
    SELECT version, entry FROM ledger WHERE version > $6 ORDER BY version LIMIT 1000
  ) AS entries),
  (:read_ahead)
)::text;

-- name: load
SELECT json_build_array(
  (SELECT value FROM meta WHERE name = 'id'),
  -- A promoted standby or a restored server goes on from a copy: its timeline differs. What pg_restore has written is a
  -- copy too: its tables have other numbers, or are at another server.
  left(pg_walfile_name(pg_current_wal_lsn()), 8) || '-' ||
    left(md5(concat_ws('-', (SELECT system_identifier FROM pg_control_system()), 'ledger'::regclass::oid)), 8),
  (SELECT value::json FROM meta WHERE name = 'runs'),
  (SELECT json_agg(body::json) FROM tenant),
  (SELECT json_agg(json_build_array(version, entry::json) ORDER BY version) FROM ledger
   WHERE version >= (SELECT version FROM ledger WHERE complete ORDER BY version DESC LIMIT 1)),
  (SELECT coalesce(max(lo), 0) FROM partition)
)::text;

-- name: commit
-- The tasks that one commit has changed ($8 and following), its new tasks, its events, and its entry in the ledger ($1 to
-- $5). Other instances are notified ($6) only while somebody waits there: waiting instances share the lock $7.
-- `ANY (ARRAY[new.n])`: see update_tasks.
WITH new AS MATERIALIZED (
  SELECT * FROM unnest(:commit_changed) AS new (n, :task_changing)
), updated AS (
  UPDATE task SET (:task_changing) = ROW (:task_new) FROM new WHERE task.n = ANY (ARRAY[new.n]) AND new.state < 2
), gone AS (
  DELETE FROM task USING new WHERE task.n = ANY (ARRAY[new.n]) AND new.state >= 2
  RETURNING new.n, :task_new, :task_fixed
), ended_now AS (
  INSERT INTO ended (:task_columns) SELECT * FROM gone
), inserted AS (
  INSERT INTO task (:task_columns) SELECT * FROM unnest(:commit_inserted)
), happened AS (
  INSERT INTO event (:event_columns) SELECT * FROM unnest(:commit_events)
), entered AS (
  INSERT INTO ledger (version, at, token, entry, complete) VALUES ($1, $2, $3, $4, $5) RETURNING version
)
SELECT CASE WHEN $6::text IS NULL OR pg_try_advisory_xact_lock('ledger'::regclass::int, $7) THEN NULL
  ELSE pg_notify('safelight', $6::text)::text END FROM entered;

-- name: committed
-- $1: the version that was tried; $2: the token. Returns whether a commit whose answer was lost has happened.
SELECT version FROM ledger WHERE version >= $1 AND token = $2;

-- name: notify
SELECT CASE WHEN pg_try_advisory_xact_lock('ledger'::regclass::int, $2) THEN NULL ELSE pg_notify('safelight', $1::text)::text END;

-- name: clean_ledger
-- $1, $2: versions between which everything is known to all
DELETE FROM ledger WHERE version >= $1 AND version < $2;

-- name: latest_commit
SELECT coalesce(max(at), 0) FROM ledger;

-- name: last_complete
-- $1: a time; the newest complete entry before it
SELECT version FROM ledger WHERE complete AND at < $1 ORDER BY version DESC LIMIT 1;

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

-- name: insert_events
INSERT INTO event (:event_columns) SELECT * FROM unnest(:event_arrays);

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

-- name: uploading_before
-- $1: a time; $2: how many; $3: number from which to look
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM (SELECT * FROM task WHERE state = -1 AND n >= $3 ORDER BY n LIMIT $2) AS oldest WHERE created < $1
) AS task;

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

-- name: tasks_after
SELECT coalesce(json_agg(:task), '[]')::text FROM (
  SELECT * FROM every_task WHERE n > $1 ORDER BY n LIMIT $2
) AS task;

-- name: first_task
SELECT min(n) FROM every_task;

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

-- name: last_partition
-- $1: parent
SELECT max(hi) FROM partition WHERE parent = $1 AND announced IS NULL;

-- name: insert_partition
INSERT INTO partition (name, parent, lo, hi) VALUES ($1, $2, $3, $4);

-- name: old_partition
-- $1: parent; $2: a time
SELECT name FROM partition WHERE parent = $1 AND announced IS NULL AND hi <= $2 ORDER BY lo LIMIT 1;

-- name: detached_partition
SELECT json_build_array(name, announced)::text FROM partition WHERE announced IS NOT NULL ORDER BY lo LIMIT 1;

-- name: meta
SELECT value FROM meta WHERE name = $1;

-- name: set_meta
INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: end_suspended
-- $1: an advisory lock; $2: seconds. Ends the session that has the lock and was idle for so long.
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND classid = 'ledger'::regclass AND objid = $1::int8 AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND usename = current_user AND state = 'idle' AND state_change < clock_timestamp() - make_interval(secs => $2);

-- name: set_announced
UPDATE partition SET announced = $2 WHERE name = $1;

-- name: delete_partition
DELETE FROM partition WHERE name = $1;

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

-- name: insert_delivery
INSERT INTO delivery (created, due, url, attempt, task, tenant) VALUES ($1, $2, $3, 0, $4, $5);

-- name: due_deliveries
-- $1: now; $2: how many of each tenant, those first that fell due first; $3: the time from which to look
WITH RECURSIVE owner AS (
  (SELECT tenant FROM delivery ORDER BY tenant LIMIT 1)
  UNION ALL
  SELECT (SELECT delivery.tenant FROM delivery WHERE delivery.tenant > owner.tenant ORDER BY delivery.tenant LIMIT 1)
  FROM owner WHERE owner.tenant IS NOT NULL
)
SELECT coalesce(json_agg(json_build_array(theirs.n, theirs.tenant, theirs.due)), '[]')::text
FROM owner CROSS JOIN LATERAL (
  SELECT n, delivery.tenant, due FROM delivery
  WHERE delivery.tenant = owner.tenant AND due >= $3 AND due <= $1 ORDER BY due, n LIMIT $2
) AS theirs;

-- name: deliveries_by_number
SELECT coalesce(json_agg(json_build_array(n, url, attempt, task::json)), '[]')::text FROM delivery
WHERE n IN (SELECT value::bigint FROM json_array_elements_text($1::json));

-- name: first_delivery
SELECT due FROM delivery WHERE due >= $1 ORDER BY due LIMIT 1;

-- name: take_deliveries
-- $1: pairs of number and token; $2: when it is due again if nobody settles it
UPDATE delivery SET due = $2, attempt = attempt + 1, token = taken.token
FROM (SELECT (value->>0)::bigint AS n, value->>1 AS token FROM json_array_elements($1::json)) AS taken
WHERE delivery.n = taken.n;

-- name: delay_delivery
-- $1: number; $2: attempt; $3: token; $4: when it is due again
UPDATE delivery SET due = $4, token = NULL WHERE n = $1 AND attempt = $2 AND token = $3;

-- name: delete_delivery
DELETE FROM delivery WHERE n = $1 AND attempt = $2 AND token = $3;

-- name: delete_old_deliveries
DELETE FROM delivery WHERE n IN (
  SELECT n FROM (SELECT n, created FROM delivery ORDER BY n LIMIT $2) AS oldest WHERE created < $1
);

-- name: keep_workers
INSERT INTO worker SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::float8[])
ON CONFLICT (id) DO UPDATE SET info = excluded.info, last_seen = excluded.last_seen;

-- name: workers
-- $1: the time since which they were seen
SELECT coalesce(json_agg(json_build_object('worker', info::json, 'first_seen', first_seen, 'last_seen', last_seen)
  ORDER BY last_seen), '[]')::text FROM worker WHERE last_seen >= $1;

-- name: forget_workers
DELETE FROM worker WHERE last_seen < $1;

-- name: recipes
SELECT coalesce(json_agg(json_build_array(name, changed, size) ORDER BY name COLLATE "C"), '[]')::text
FROM recipe WHERE tenant = $1;

-- name: recipe
SELECT json_build_array(spec, changed)::text FROM recipe WHERE tenant = $1 AND name = $2;

-- name: other_recipes
SELECT json_build_array(count(*), coalesce(sum(size), 0))::text FROM recipe WHERE tenant = $1 AND name <> $2;

-- name: recipe_changed
SELECT changed FROM recipe WHERE tenant = $1 AND name = $2;

-- name: save_recipe
INSERT INTO recipe (tenant, name, spec, changed, size) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, name) DO UPDATE
SET spec = excluded.spec, changed = excluded.changed, size = excluded.size;

-- name: delete_recipe
DELETE FROM recipe WHERE tenant = $1 AND name = $2;

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

-- name: keep_tenant
INSERT INTO tenant (id, body) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body;

-- name: delete_tenant_of_tenant
DELETE FROM tenant WHERE id = $1;

-- name: delete_tenant_use_of_tenant
-- The ledger has the use of a tenant.
SELECT $1::text WHERE false;

-- name: delete_api_keys_of_tenant
DELETE FROM api_key WHERE tenant = $1;

-- name: delete_sessions_of_tenant
DELETE FROM session WHERE tenant = $1;

-- name: delete_signing_keys_of_tenant
DELETE FROM signing_key WHERE tenant = $1;

-- name: delete_recipes_of_tenant
DELETE FROM recipe WHERE tenant = $1;

-- name: api_keys
SELECT coalesce(json_agg(body::json ORDER BY n), '[]')::text FROM api_key
WHERE $1::text IS NULL OR tenant = $1::text;

-- name: api_key
SELECT body FROM api_key WHERE id = $1;

-- name: keep_api_key
INSERT INTO api_key (id, tenant, body) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET body = excluded.body;

-- name: session
SELECT body FROM session WHERE id = $1 AND expires > $2;

-- name: insert_session
INSERT INTO session (id, tenant, expires, body) VALUES ($1, $2, $3, $4);

-- name: delete_session
DELETE FROM session WHERE id = $1;

-- name: delete_old_sessions
DELETE FROM session WHERE id IN (SELECT id FROM session WHERE expires <= $1 ORDER BY expires LIMIT $2);

-- name: ticket
SELECT body FROM ticket WHERE id = $1 AND expires > $2;

-- name: insert_ticket
INSERT INTO ticket (id, expires, body) VALUES ($1, $2, $3);

-- name: delete_ticket
DELETE FROM ticket WHERE id = $1;

-- name: delete_old_tickets
DELETE FROM ticket WHERE id IN (SELECT id FROM ticket WHERE expires <= $1 ORDER BY expires LIMIT $2);

-- name: signing_keys
SELECT coalesce(json_agg(body::json ORDER BY n DESC), '[]')::text FROM signing_key WHERE tenant = $1;

-- name: insert_signing_key
INSERT INTO signing_key (tenant, body) VALUES ($1, $2);

-- name: insert_audit
INSERT INTO audit (at, tenant, body) VALUES ($1, $2, $3);

-- name: audit
SELECT coalesce(json_agg(json_build_array(seq, at, body::json)), '[]')::text FROM (
  SELECT * FROM audit WHERE seq > $1 AND ($3::text IS NULL OR tenant = $3::text) ORDER BY seq LIMIT $2
) AS entries;

-- name: last_audit
SELECT coalesce(max(seq), 0) FROM audit;

-- name: delete_old_audit
DELETE FROM audit WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM audit ORDER BY seq LIMIT $2) AS oldest WHERE at < $1);

-- name: statistics_at
-- $1: pairs of tenant and slot
SELECT coalesce(json_agg(json_build_array(tenant, slot, body::json)), '[]')::text FROM statistic
WHERE (tenant, slot) IN (SELECT value->>0, (value->>1)::bigint FROM json_array_elements($1::json));

-- name: statistics
-- $1: tenant; $2: first slot
SELECT coalesce(json_agg(json_build_array(tenant, slot, body::json)), '[]')::text
FROM statistic WHERE tenant = $1 AND slot >= $2;

-- name: keep_statistic
INSERT INTO statistic (tenant, slot, body) VALUES ($1, $2, $3)
ON CONFLICT (tenant, slot) DO UPDATE SET body = excluded.body;

-- name: delete_statistics
DELETE FROM statistic WHERE slot < $1;

-- name: delete_statistics_of_tenant
DELETE FROM statistic WHERE tenant = $1;

-- name: delivery
-- $1: number; $2: attempt; $3: token
SELECT json_build_array(created, url, task::json)::text FROM delivery WHERE n = $1 AND attempt = $2 AND token = $3;

-- name: hasten_delivery
-- $1: number; $2: now. A call in progress does not change.
UPDATE delivery SET due = $2 WHERE n = $1 AND token IS NULL;

-- name: keep_webhook_call
INSERT INTO webhook_call (n, tenant, at, body, task) VALUES ($1, $2, $3, ($4::json)::text, ($5::json)::text)
ON CONFLICT (n) DO UPDATE
SET tenant = excluded.tenant, at = excluded.at, body = excluded.body, task = excluded.task;

-- name: trim_webhook_calls
-- $1: tenant; $2: how many to keep
DELETE FROM webhook_call WHERE tenant = $1 AND n <= (
  SELECT n FROM webhook_call WHERE tenant = $1 ORDER BY n DESC LIMIT 1 OFFSET $2
);

-- name: webhook_calls
-- $1: tenant; $2: below which number; $3: how many; $4: outcome or NULL
SELECT coalesce(json_agg(body::json ORDER BY n DESC), '[]')::text FROM (
  SELECT n, body FROM webhook_call
  WHERE tenant = $1 AND n < $2 AND ($4::text IS NULL OR body::json->>'outcome' = $4) ORDER BY n DESC LIMIT $3
) AS call;

-- name: webhook_call
-- $1: number; $2: tenant
SELECT json_build_array(body::json, task::json)::text FROM webhook_call WHERE n = $1 AND tenant = $2;

-- name: delete_old_webhook_calls
DELETE FROM webhook_call WHERE n IN (
  SELECT n FROM (SELECT n, at FROM webhook_call ORDER BY n LIMIT 500) AS oldest WHERE at < $1
);

-- name: delete_deliveries_of_tenant
DELETE FROM delivery WHERE tenant = $1;

-- name: delete_webhook_calls_of_tenant
DELETE FROM webhook_call WHERE tenant = $1;

-- name: grown_tables
-- Tables that are several times as large as when they were analysed, while they are small. $1: how large
SELECT coalesce(json_agg(quote_ident(seen.relname)), '[]')::text
FROM pg_stat_user_tables AS seen JOIN pg_class AS class ON class.oid = seen.relid
WHERE schemaname = current_schema() AND reltuples < $1 AND n_mod_since_analyze > 100 + 4 * greatest(reltuples, 0);
