-- name: tenants
SELECT '[' || coalesce(group_concat(body), '') || ']' FROM tenant;

-- name: keep_tenant
INSERT INTO tenant (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = ?2;

-- name: delete_tenant_of_tenant
DELETE FROM tenant WHERE id = ?1;

-- name: delete_tenant_use_of_tenant
DELETE FROM tenant_use WHERE tenant = ?1;

-- name: delete_api_keys_of_tenant
DELETE FROM api_key WHERE tenant = ?1;

-- name: delete_sessions_of_tenant
DELETE FROM session WHERE tenant = ?1;

-- name: delete_signing_keys_of_tenant
DELETE FROM signing_key WHERE tenant = ?1;

-- name: api_keys
SELECT '[' || coalesce(group_concat(body), '') || ']'
FROM (SELECT body FROM api_key WHERE ?1 IS NULL OR tenant = ?1 ORDER BY rowid);

-- name: api_key
SELECT body FROM api_key WHERE id = ?1;

-- name: keep_api_key
INSERT INTO api_key (id, tenant, body) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = ?3;

-- name: session
SELECT body FROM session WHERE id = ?1 AND expires > ?2;

-- name: insert_session
INSERT INTO session (id, tenant, expires, body) VALUES (?1, ?2, ?3, ?4);

-- name: delete_session
DELETE FROM session WHERE id = ?1;

-- name: delete_old_sessions
DELETE FROM session WHERE id IN (SELECT id FROM session INDEXED BY session_expires WHERE expires <= ?1 LIMIT ?2);

-- name: ticket
SELECT body FROM ticket WHERE id = ?1 AND expires > ?2;

-- name: insert_ticket
INSERT INTO ticket (id, expires, body) VALUES (?1, ?2, ?3);

-- name: delete_ticket
DELETE FROM ticket WHERE id = ?1;

-- name: delete_old_tickets
DELETE FROM ticket WHERE id IN (SELECT id FROM ticket INDEXED BY ticket_expires WHERE expires <= ?1 LIMIT ?2);

-- name: signing_keys
SELECT '[' || coalesce(group_concat(body), '') || ']' FROM (
  SELECT body FROM signing_key WHERE tenant = ?1 ORDER BY n DESC
);

-- name: insert_signing_key
INSERT INTO signing_key (tenant, body) VALUES (?1, ?2);

-- name: insert_audit
INSERT INTO audit (at, tenant, body) VALUES (?1, ?2, ?3);

-- name: audit
SELECT json_group_array(json_array(seq, at, json(body))) FROM (
  SELECT * FROM audit WHERE seq > ?1 AND (?3 IS NULL OR tenant = ?3) ORDER BY seq LIMIT ?2
);

-- name: last_audit
SELECT coalesce(max(seq), 0) FROM audit;

-- name: delete_old_audit
DELETE FROM audit WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM audit ORDER BY seq LIMIT ?2) WHERE at < ?1);
