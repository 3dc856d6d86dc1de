-- Times are Unix milliseconds. Tasks that have not ended are in `task`, which therefore stays small; those that have are
-- in `ended`. That table and `event` are partitioned by time, and whole partitions are dropped.

CREATE TABLE meta (
  name text PRIMARY KEY,
  value text NOT NULL
);
INSERT INTO meta VALUES ('id', replace(gen_random_uuid()::text, '-', '')); -- identifies this database

-- One row for each commit, in order: what the other instances must know of it (ledger.py).
CREATE TABLE ledger (
  version bigint PRIMARY KEY,
  at bigint NOT NULL,
  token text NOT NULL, -- of the commit
  entry text NOT NULL,
  complete boolean NOT NULL -- whether it holds the counts of every tenant
);
CREATE INDEX ledger_complete ON ledger (version) WHERE complete;
INSERT INTO ledger VALUES (1, 0, '', '{}', true);

CREATE TABLE partition (
  name text PRIMARY KEY,
  parent text NOT NULL,
  lo bigint NOT NULL,
  hi bigint NOT NULL,
  announced bigint -- of a detached one: the last task whose deletion is an event
);

CREATE TABLE spec (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  digest text NOT NULL UNIQUE,
  body text NOT NULL,
  until bigint NOT NULL -- no task with a larger number uses it
);

-- The columns of tasks and events are those of rows.TaskRow and rows.EventRow, which say more about them.
CREATE TABLE task (
  n bigint PRIMARY KEY,
  state smallint NOT NULL,
  seq bigint NOT NULL,
  changed bigint NOT NULL,
  due bigint,
  attempts integer NOT NULL,
  errors integer NOT NULL,
  deaths integer NOT NULL,
  classic_deaths integer NOT NULL,
  lease text,
  expires bigint,
  lease_duration bigint,
  worker text,
  settled text,
  settled_as text,
  outputs json,
  failure json,
  engine text NOT NULL,
  seconds double precision NOT NULL,
  key text NOT NULL,
  created bigint NOT NULL,
  priority smallint NOT NULL,
  classic smallint NOT NULL,
  internal smallint NOT NULL,
  interactive smallint NOT NULL,
  tenant text NOT NULL,
  spec bigint NOT NULL,
  recipe text NOT NULL,
  input text,
  input_size bigint,
  filename text NOT NULL,
  media_type text NOT NULL,
  batch text NOT NULL,
  idempotency_key text,
  webhook text,
  reused smallint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE ended (LIKE task INCLUDING DEFAULTS) PARTITION BY RANGE (changed);

-- Tasks that can be leased now. Each statement reads forward from a position (lanes.py).
CREATE INDEX task_waiting ON task (tenant, priority, interactive, n) WHERE state = 0 AND due IS NULL;
CREATE INDEX task_classic ON task (tenant, priority, interactive, n) WHERE state = 0 AND due IS NULL AND classic = 1;
CREATE INDEX task_oldest ON task (tenant, n) WHERE state = 0 AND due IS NULL;
-- For maintenance.
CREATE INDEX task_delayed ON task (due) WHERE state = 0 AND due IS NOT NULL;
CREATE INDEX task_expires ON task (expires) WHERE state = 1;
CREATE INDEX task_uploading ON task (n) WHERE state = -1;
CREATE INDEX task_worker ON task (worker, seq) WHERE state = 1;
-- For queries.
CREATE UNIQUE INDEX task_idempotency ON task (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_tenant ON task (tenant, n);
CREATE INDEX task_state ON task (tenant, state, n);
CREATE INDEX task_batch ON task (tenant, batch, n) WHERE batch <> '';
CREATE INDEX task_recipe ON task (tenant, recipe, n);
CREATE INDEX ended_n ON ended (n);
CREATE INDEX ended_idempotency ON ended (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX ended_result ON ended (tenant, input, spec, engine) WHERE state = 2 AND outputs IS NOT NULL;
CREATE INDEX ended_tenant ON ended (tenant, n);
CREATE INDEX ended_state ON ended (tenant, state, n);
CREATE INDEX ended_batch ON ended (tenant, batch, n) WHERE batch <> '';
CREATE INDEX ended_recipe ON ended (tenant, recipe, n);

CREATE VIEW every_task AS SELECT * FROM task UNION ALL SELECT * FROM ended;

CREATE TABLE event (
  seq bigint NOT NULL,
  at bigint NOT NULL,
  n bigint NOT NULL,
  key text NOT NULL,
  state smallint NOT NULL,
  recipe text NOT NULL,
  batch text NOT NULL,
  internal smallint NOT NULL,
  tenant text NOT NULL,
  attempt integer NOT NULL,
  worker text NOT NULL,
  kind text NOT NULL,
  failure json,
  seconds double precision NOT NULL
) PARTITION BY RANGE (at);
CREATE INDEX event_seq ON event (seq);
CREATE INDEX event_task ON event (n, seq);

-- One webhook call for each end of a task that has a webhook, with the task as it was then.
CREATE TABLE delivery (
  n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  created bigint NOT NULL,
  due bigint NOT NULL,
  url text NOT NULL,
  attempt integer NOT NULL,
  token text,
  task text NOT NULL
);
CREATE INDEX delivery_due ON delivery (due, n);

-- The workers seen lately. They are back within seconds of a crash of the server, so nothing is flushed for them.
CREATE UNLOGGED TABLE worker (
  id text PRIMARY KEY,
  info text NOT NULL,
  first_seen double precision NOT NULL,
  last_seen double precision NOT NULL
);

CREATE TABLE recipe (
  tenant text NOT NULL,
  name text NOT NULL,
  spec text NOT NULL,
  changed bigint NOT NULL,
  PRIMARY KEY (tenant, name)
);

-- Who gets in. Records are kept as JSON (`body`); what is searched by has a column of its own. Times in Unix seconds.
CREATE TABLE tenant (
  id text PRIMARY KEY,
  body text NOT NULL
);
INSERT INTO tenant VALUES ('default', '{"id":"default"}');

CREATE TABLE api_key (
  id text PRIMARY KEY,
  n bigint GENERATED ALWAYS AS IDENTITY,
  tenant text NOT NULL,
  body text NOT NULL
);
CREATE INDEX api_key_tenant ON api_key (tenant);

CREATE TABLE session (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  expires double precision NOT NULL,
  body text NOT NULL
);
CREATE INDEX session_expires ON session (expires);
CREATE INDEX session_tenant ON session (tenant);

CREATE TABLE ticket (
  id text PRIMARY KEY,
  expires double precision NOT NULL,
  body text NOT NULL
);
CREATE INDEX ticket_expires ON ticket (expires);

CREATE TABLE signing_key (
  n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  tenant text NOT NULL,
  body text NOT NULL
);
CREATE INDEX signing_key_tenant ON signing_key (tenant, n);

CREATE TABLE audit (
  seq bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  at double precision NOT NULL,
  tenant text NOT NULL,
  body text NOT NULL
);
