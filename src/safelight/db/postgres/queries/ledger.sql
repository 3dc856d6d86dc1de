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
