-- The span that created a task, where it is traced (W3C Trace Context). The row as one value has it too.
ALTER TABLE task DROP COLUMN as_json;
ALTER TABLE task ADD COLUMN traceparent TEXT;
ALTER TABLE task ADD COLUMN as_json TEXT GENERATED ALWAYS AS (json_array(
  n, state, seq, changed, due, attempts, errors, deaths, classic_deaths, lease, expires, lease_duration, worker, settled,
  settled_as, json(outputs), json(failure), engine, seconds, key, created, priority, classic, internal, interactive, tenant,
  spec, recipe, input, input_size, filename, media_type, batch, idempotency_key, webhook, reused, traceparent
)) VIRTUAL;
