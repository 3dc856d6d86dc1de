-- What happened in five minutes (`slot` is the Unix time divided by 300), for each tenant.
CREATE TABLE statistic (
  tenant TEXT NOT NULL,
  slot INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (tenant, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX statistic_slot ON statistic (slot);

-- The webhook calls of each tenant that were made, with the last answer; `n` is that of the delivery.
CREATE TABLE webhook_call (
  n INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  at INTEGER NOT NULL, -- of the last answer, in milliseconds
  body TEXT NOT NULL,
  task TEXT NOT NULL -- as it was when it ended
) STRICT;
CREATE INDEX webhook_call_tenant ON webhook_call (tenant, n);
