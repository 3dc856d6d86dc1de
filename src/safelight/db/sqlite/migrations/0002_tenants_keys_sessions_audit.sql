-- Who gets in. Records are kept as JSON (`body`); what is searched by has a column of its own. Times in Unix seconds.

CREATE TABLE tenant (
  id TEXT PRIMARY KEY,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO tenant VALUES ('default', '{"id":"default"}');

-- What each tenant's tasks take up, so that it need not be summed up at every start.
CREATE TABLE tenant_use (
  tenant TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key ( -- in the order of its row numbers, which is that of creation
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX api_key_tenant ON api_key (tenant, id);

CREATE TABLE session (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  expires REAL NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_expires ON session (expires);
CREATE INDEX session_tenant ON session (tenant);

CREATE TABLE ticket (
  id TEXT PRIMARY KEY,
  expires REAL NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ticket_expires ON ticket (expires);

CREATE TABLE signing_key (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX signing_key_tenant ON signing_key (tenant, n);

CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  tenant TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
