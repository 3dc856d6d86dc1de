-- Times are Unix milliseconds. The spec of a recipe, which is large and shared by many tasks, is stored once.

CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value ANY
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('id', lower(hex(randomblob(16)))); -- identifies this database

CREATE TABLE spec (
  id INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  body TEXT NOT NULL,
  until INTEGER NOT NULL -- no task with a larger number uses it
) STRICT;

-- The columns of tasks and events are in the order of rows.TaskRow and rows.EventRow.
CREATE TABLE task (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  -- These change:
  state INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  due INTEGER, -- when a waiting task may be leased; NULL is now
  attempts INTEGER NOT NULL, -- never reset, since it is part of the leases' ids
  errors INTEGER NOT NULL,
  deaths INTEGER NOT NULL,
  classic_deaths INTEGER NOT NULL, -- deaths that were expired leases of classic workers
  lease TEXT, -- the random part of the lease in force
  expires INTEGER,
  lease_duration INTEGER, -- milliseconds without a heartbeat after which the lease expires
  worker TEXT, -- '' is a classic one
  settled TEXT, -- the random part of the last lease that an outcome has ended, and the kind of the outcome
  settled_as TEXT,
  outputs TEXT, -- NULL where there are none
  failure TEXT,
  engine TEXT NOT NULL,
  seconds REAL NOT NULL,
  -- These do not:
  key TEXT NOT NULL, -- the random part of its id
  created INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  classic INTEGER NOT NULL, -- whether a classic worker may do it
  internal INTEGER NOT NULL, -- whether the system made it for its own use
  interactive INTEGER NOT NULL, -- whether its sender waits for it alone, and not for a batch
  tenant TEXT NOT NULL,
  spec INTEGER NOT NULL REFERENCES spec,
  recipe TEXT NOT NULL,
  input TEXT,
  input_size INTEGER,
  filename TEXT NOT NULL,
  media_type TEXT NOT NULL,
  batch TEXT NOT NULL,
  idempotency_key TEXT,
  webhook TEXT,
  reused INTEGER NOT NULL,
  -- The row as one value; connection.py says why rows are read like this.
  as_json TEXT GENERATED ALWAYS AS (json_array(
    n, state, seq, changed, due, attempts, errors, deaths, classic_deaths, lease, expires, lease_duration, worker, settled,
    settled_as, json(outputs), json(failure), engine, seconds, key, created, priority, classic, internal, interactive, tenant,
    spec, recipe, input, input_size, filename, media_type, batch, idempotency_key, webhook, reused
  )) VIRTUAL
) STRICT;

-- Tasks of a tenant that can be leased now: by priority, by priority for classic workers, by age.
CREATE INDEX task_waiting ON task (tenant, priority DESC, interactive DESC, n) WHERE state = 0 AND due IS NULL;
CREATE INDEX task_classic ON task (tenant, priority DESC, interactive DESC, n)
  WHERE state = 0 AND due IS NULL AND classic = 1;
CREATE INDEX task_oldest ON task (tenant, n) WHERE state = 0 AND due IS NULL;
-- For maintenance.
CREATE INDEX task_delayed ON task (due) WHERE state = 0 AND due IS NOT NULL;
CREATE INDEX task_expires ON task (expires) WHERE state = 1;
CREATE INDEX task_uploading ON task (n) WHERE state = -1;
CREATE INDEX task_ended ON task (changed) WHERE state >= 2;
-- For queries.
CREATE INDEX task_worker ON task (worker) WHERE state = 1;
CREATE UNIQUE INDEX task_idempotency ON task (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_result ON task (tenant, input, spec, engine) WHERE state = 2 AND outputs IS NOT NULL;
CREATE INDEX task_tenant ON task (tenant, n);
CREATE INDEX task_state ON task (tenant, state, n);
CREATE INDEX task_batch ON task (tenant, batch, n) WHERE batch <> '';
CREATE INDEX task_recipe ON task (tenant, recipe, n);

CREATE TABLE event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  n INTEGER NOT NULL,
  key TEXT NOT NULL,
  state INTEGER NOT NULL,
  recipe TEXT NOT NULL,
  batch TEXT NOT NULL,
  internal INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  worker TEXT NOT NULL,
  kind TEXT NOT NULL,
  failure TEXT,
  seconds REAL NOT NULL,
  as_json TEXT GENERATED ALWAYS AS (json_array(
    seq, at, n, key, state, recipe, batch, internal, tenant, attempt, worker, kind, json(failure), seconds
  )) VIRTUAL
) STRICT;
CREATE INDEX event_task ON event (n, seq);

-- One webhook call for each end of a task that has a webhook, with the task as it was then.
CREATE TABLE delivery (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  created INTEGER NOT NULL,
  due INTEGER NOT NULL,
  url TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  token TEXT,
  task TEXT NOT NULL
) STRICT;
CREATE INDEX delivery_due ON delivery (due);

CREATE TABLE recipe (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  changed INTEGER NOT NULL,
  PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
