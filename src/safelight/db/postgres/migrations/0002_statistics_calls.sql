-- What happened in five minutes (`slot` is the Unix time divided by 300), for each tenant.
CREATE TABLE statistic (
  tenant text NOT NULL,
  slot bigint NOT NULL,
  body text NOT NULL,
  PRIMARY KEY (tenant, slot)
);
CREATE INDEX statistic_slot ON statistic (slot);

-- The webhook calls of each tenant that were made, with the last answer; `n` is that of the delivery.
CREATE TABLE webhook_call (
  n bigint PRIMARY KEY,
  tenant text NOT NULL,
  at bigint NOT NULL, -- of the last answer, in milliseconds
  body text NOT NULL,
  task text NOT NULL -- as it was when it ended
);
CREATE INDEX webhook_call_tenant ON webhook_call (tenant, n);
