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
