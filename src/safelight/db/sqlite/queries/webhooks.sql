-- name: insert_delivery
INSERT INTO delivery (created, due, url, attempt, task, tenant) VALUES (?1, ?2, ?3, 0, ?4, ?5);

-- name: due_deliveries
-- ?1: now; ?2: how many of each tenant, those first that fell due first
WITH RECURSIVE owner (tenant) AS (
  SELECT (SELECT tenant FROM delivery INDEXED BY delivery_tenant ORDER BY tenant LIMIT 1)
  UNION ALL
  SELECT (
    SELECT tenant FROM delivery INDEXED BY delivery_tenant WHERE tenant > owner.tenant ORDER BY tenant LIMIT 1
  ) FROM owner WHERE owner.tenant IS NOT NULL
)
SELECT json_group_array(json_array(delivery.n, delivery.tenant, delivery.due)) FROM owner JOIN delivery ON delivery.n IN (
  SELECT n FROM delivery INDEXED BY delivery_tenant WHERE tenant = owner.tenant AND due <= ?1 ORDER BY due, n LIMIT ?2
);

-- name: deliveries_by_number
SELECT json_group_array(json_array(n, url, attempt, json(task))) FROM delivery WHERE n IN (SELECT value FROM json_each(?1));

-- name: take_deliveries
-- ?1: pairs of number and token; ?2: when it is due again if nobody settles it
UPDATE delivery SET due = ?2, attempt = attempt + 1, token = taken.token
FROM (SELECT value->>0 AS n, value->>1 AS token FROM json_each(?1)) AS taken
WHERE delivery.n = taken.n;

-- name: delay_delivery
-- ?1: number; ?2: attempt; ?3: token; ?4: when it is due again
UPDATE delivery SET due = ?4, token = NULL WHERE n = ?1 AND attempt = ?2 AND token = ?3;

-- name: delete_delivery
DELETE FROM delivery WHERE n = ?1 AND attempt = ?2 AND token = ?3;

-- name: delete_old_deliveries
DELETE FROM delivery WHERE n IN (SELECT n FROM (SELECT n, created FROM delivery ORDER BY n LIMIT ?2) WHERE created < ?1);

-- name: next_delivery
SELECT due FROM delivery INDEXED BY delivery_due WHERE due > ?1 ORDER BY due LIMIT 1;

-- name: first_delivery_created
SELECT created FROM delivery ORDER BY n LIMIT 1;

-- name: count_deliveries
SELECT count(*) FROM delivery;

-- name: delivery
-- ?1: number; ?2: attempt; ?3: token
SELECT json_array(created, url, json(task)) FROM delivery WHERE n = ?1 AND attempt = ?2 AND token = ?3;

-- name: hasten_delivery
-- ?1: number; ?2: now. A call in progress does not change.
UPDATE delivery SET due = ?2 WHERE n = ?1 AND token IS NULL;

-- name: keep_webhook_call
INSERT INTO webhook_call (n, tenant, at, body, task) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (n) DO UPDATE SET tenant = ?2, at = ?3, body = ?4, task = ?5;

-- name: trim_webhook_calls
-- ?1: tenant; ?2: how many to keep
DELETE FROM webhook_call WHERE tenant = ?1 AND n <= (
  SELECT n FROM webhook_call WHERE tenant = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2
);

-- name: webhook_calls
-- ?1: tenant; ?2: below which number; ?3: how many; ?4: outcome or NULL
SELECT '[' || coalesce(group_concat(body), '') || ']' FROM (
  SELECT body FROM webhook_call INDEXED BY webhook_call_tenant
  WHERE tenant = ?1 AND n < ?2 AND (?4 IS NULL OR body->>'outcome' = ?4) ORDER BY n DESC LIMIT ?3
);

-- name: webhook_call
-- ?1: number; ?2: tenant
SELECT json_array(json(body), json(task)) FROM webhook_call WHERE n = ?1 AND tenant = ?2;

-- name: delete_old_webhook_calls
DELETE FROM webhook_call WHERE n IN (SELECT n FROM (SELECT n, at FROM webhook_call ORDER BY n LIMIT 500) WHERE at < ?1);

-- name: delete_deliveries_of_tenant
DELETE FROM delivery WHERE tenant = ?1;

-- name: delete_webhook_calls_of_tenant
DELETE FROM webhook_call WHERE tenant = ?1;
