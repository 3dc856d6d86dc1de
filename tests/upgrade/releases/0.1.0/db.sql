BEGIN TRANSACTION;
CREATE TABLE api_key ( -- in the order of its row numbers, which is that of creation
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
INSERT INTO "api_key" VALUES('kept','default','{"id":"kept","tenant":"default","name":"kept","scopes":["read"],"created":1795718362.747,"created_by":"","expires":null,"revoked":null,"rotated":null,"last_used":null,"digest":"0000000000000000000000000000000000000000000000000000000000000000","previous":null,"previous_expires":0.0}');
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  tenant TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
INSERT INTO "audit" VALUES(1,1795718362.014,'default','{"seq":0,"at":0.0,"tenant":"default","who":"default/this machine","via":"loopback","remote":"127.0.0.1","action":"recipes.save","subject":"small","outcome":"begun","detail":{}}');
CREATE TABLE delivery (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  created INTEGER NOT NULL,
  due INTEGER NOT NULL,
  url TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  token TEXT,
  task TEXT NOT NULL
) STRICT;
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
INSERT INTO "event" VALUES(1,1795718355630,1,'iotrsbggte',0,'invert','',0,'default',0,'','created',NULL,0.0);
INSERT INTO "event" VALUES(2,1795718360646,1,'iotrsbggte',1,'invert','',0,'default',1,'vm-581b93707ab04981','leased',NULL,0.0);
INSERT INTO "event" VALUES(3,1795718360986,1,'iotrsbggte',2,'invert','',0,'default',1,'vm-581b93707ab04981','finished',NULL,1.04888089990708976984e-02);
INSERT INTO "event" VALUES(4,1795718361160,2,'lsoe75fyqk',2,'invert','twice',0,'default',0,'','created',NULL,0.0);
INSERT INTO "event" VALUES(5,1795718361555,3,'rsc6tnzojz',0,'invert','',0,'default',0,'','created',NULL,0.0);
INSERT INTO "event" VALUES(6,1795718361562,3,'rsc6tnzojz',1,'invert','',0,'default',1,'vm-581b93707ab04981','leased',NULL,0.0);
INSERT INTO "event" VALUES(7,1795718361759,3,'rsc6tnzojz',3,'invert','',0,'default',1,'vm-581b93707ab04981','failed','{"code":"damaged_image","detail":"The PNG file is damaged: it is cut off at byte 60, inside its IDAT chunk.","extra":{}}',8.66835070009983610361e-02);
INSERT INTO "event" VALUES(8,1795718362374,4,'xeqprtw2in',0,'small','',0,'default',0,'','created',NULL,0.0);
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value ANY
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('ages','{"running":7.96256146000087,"wall":1795718362.7771962,"looks":{"tasks":{"running":0.2031928379983583,"wall":1795718355.0178275},"uploading":{"running":0.20319927699893015,"wall":1795718355.017834},"events":{"running":0.20320197099863435,"wall":1795718355.0178373},"audit":{"running":0.20320472499952302,"wall":1795718355.0178397}},"confirmed":{},"vouched":0.0,"confirmation":0.0}');
INSERT INTO "meta" VALUES('engine','6+vips8.18.7');
INSERT INTO "meta" VALUES('id','ae0276626643c397e5463724bae79d62');
INSERT INTO "meta" VALUES('runs','[["knb67h7s5n",0]]');
CREATE TABLE recipe (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  changed INTEGER NOT NULL,
  PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "recipe" VALUES('default','small','{"auto_orient":true,"description":"","name":"small","outputs":{"small":{"background":"#ffffffff","bit_depth":8,"color":"srgb","effort":null,"format":"png","keep_gps":false,"lossless":false,"metadata":"strip","operations":[{"op":"invert"}],"progressive":false,"quality":null}},"strict":false}',1795718362059);
CREATE TABLE session (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  expires REAL NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE signing_key (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE TABLE spec (
  id INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  body TEXT NOT NULL,
  until INTEGER NOT NULL -- no task with a larger number uses it
) STRICT;
INSERT INTO "spec" VALUES(1,'3c5265d45470a5848e6b72d3af4604f3fa90e77da77ed61913e0a0db0b9a9f1f','{"auto_orient":true,"description":"A negative: every colour becomes its opposite, in the format of the upload.","name":"invert","outputs":{"image":{"background":"#ffffffff","bit_depth":8,"color":"srgb","effort":null,"format":"same","keep_gps":false,"lossless":false,"metadata":"strip","operations":[{"op":"invert"}],"progressive":false,"quality":null}},"strict":false}',1001);
INSERT INTO "spec" VALUES(2,'7a20c5554fd1de007266fe7c32c57933625f9df3c0a0d4a77e145a89e43e538d','{"auto_orient":true,"description":"","name":"small","outputs":{"small":{"background":"#ffffffff","bit_depth":8,"color":"srgb","effort":null,"format":"png","keep_gps":false,"lossless":false,"metadata":"strip","operations":[{"op":"invert"}],"progressive":false,"quality":null}},"strict":false}',1004);
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
INSERT INTO "task" VALUES(1,2,3,1795718360986,NULL,1,0,0,0,NULL,NULL,NULL,NULL,'ufam7xl6c7','finished','[{"name":"image","digest":"d1e2d4fa4cfd8223f8282fdf12419df32acbe2dad54a1a101a642e482b3fb2fc","size":1135,"media_type":"image/png","width":24,"height":16,"frames":1,"notes":[]}]',NULL,'6+vips8.18.7',1.04888089990708976984e-02,'iotrsbggte',1795718355630,0,1,0,1,'default',1,'invert','cc367823ae3c5143a96bcc7d6752385bb56969c4d58c6984053dc0bbe60af5c4',1034,'a.png','image/png','','1e9735bea049d43f603adbd9b83f598f',NULL,0);
INSERT INTO "task" VALUES(2,2,4,1795718361160,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'[{"name":"image","digest":"d1e2d4fa4cfd8223f8282fdf12419df32acbe2dad54a1a101a642e482b3fb2fc","size":1135,"media_type":"image/png","width":24,"height":16,"frames":1,"notes":[]}]',NULL,'6+vips8.18.7',0.0104888089990709,'lsoe75fyqk',1795718361160,0,1,0,0,'default',1,'invert','cc367823ae3c5143a96bcc7d6752385bb56969c4d58c6984053dc0bbe60af5c4',1034,'photo','image/png','twice','fa9a42d9687e82ce0eab9e5543a8258c',NULL,1);
INSERT INTO "task" VALUES(3,3,7,1795718361759,NULL,1,1,0,0,NULL,NULL,NULL,NULL,'ssehps2val','failed',NULL,'{"code":"damaged_image","detail":"The PNG file is damaged: it is cut off at byte 60, inside its IDAT chunk.","extra":{}}','',8.66835070009983610361e-02,'rsc6tnzojz',1795718361555,0,1,0,1,'default',1,'invert','50f91c55bc0673fb0977491b168b8ca6ce44b1044ccd3683e928bd4f89667313',60,'photo','image/png','','9cdd61e8298c99155b2eee0f95f490d7',NULL,0);
INSERT INTO "task" VALUES(4,0,8,1795718362374,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',0.0,'xeqprtw2in',1795718362374,0,0,0,1,'default',2,'small','132ede5fb2fad65ff32c040aba0120d62dbd602fad6d45a20e614daf2b0f8b70',779,'b.png','image/png','','2c3955dd092ca7347e4e036ef819a1af',NULL,0);
CREATE TABLE tenant (
  id TEXT PRIMARY KEY,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tenant" VALUES('default','{"id":"default"}');
CREATE TABLE tenant_use (
  tenant TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tenant_use" VALUES('default',5177);
CREATE TABLE ticket (
  id TEXT PRIMARY KEY,
  expires REAL NOT NULL,
  body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX task_waiting ON task (tenant, priority DESC, interactive DESC, n) WHERE state = 0 AND due IS NULL;
CREATE INDEX task_classic ON task (tenant, priority DESC, interactive DESC, n)
  WHERE state = 0 AND due IS NULL AND classic = 1;
CREATE INDEX task_oldest ON task (tenant, n) WHERE state = 0 AND due IS NULL;
CREATE INDEX task_delayed ON task (due) WHERE state = 0 AND due IS NOT NULL;
CREATE INDEX task_expires ON task (expires) WHERE state = 1;
CREATE INDEX task_uploading ON task (n) WHERE state = -1;
CREATE INDEX task_ended ON task (changed) WHERE state >= 2;
CREATE INDEX task_worker ON task (worker) WHERE state = 1;
CREATE UNIQUE INDEX task_idempotency ON task (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_result ON task (tenant, input, spec, engine) WHERE state = 2 AND outputs IS NOT NULL;
CREATE INDEX task_tenant ON task (tenant, n);
CREATE INDEX task_state ON task (tenant, state, n);
CREATE INDEX task_batch ON task (tenant, batch, n) WHERE batch <> '';
CREATE INDEX task_recipe ON task (tenant, recipe, n);
CREATE INDEX event_task ON event (n, seq);
CREATE INDEX delivery_due ON delivery (due);
CREATE INDEX api_key_tenant ON api_key (tenant, id);
CREATE INDEX session_expires ON session (expires);
CREATE INDEX session_tenant ON session (tenant);
CREATE INDEX ticket_expires ON ticket (expires);
CREATE INDEX signing_key_tenant ON signing_key (tenant, n);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('task',4);
INSERT INTO "sqlite_sequence" VALUES('event',8);
INSERT INTO "sqlite_sequence" VALUES('audit',1);
COMMIT;
PRAGMA user_version = 2;
