-- name: statistics_at
-- $1: pairs of tenant and slot
SELECT coalesce(json_agg(json_build_array(tenant, slot, body::json)), '[]')::text FROM statistic
WHERE (tenant, slot) IN (SELECT value->>0, (value->>1)::bigint FROM json_array_elements($1::json));

-- name: statistics
-- $1: tenant; $2: first slot
SELECT coalesce(json_agg(json_build_array(tenant, slot, body::json)), '[]')::text
FROM statistic WHERE tenant = $1 AND slot >= $2;

-- name: keep_statistic
INSERT INTO statistic (tenant, slot, body) VALUES ($1, $2, $3)
ON CONFLICT (tenant, slot) DO UPDATE SET body = excluded.body;

-- name: delete_statistics
DELETE FROM statistic WHERE slot < $1;

-- name: delete_statistics_of_tenant
DELETE FROM statistic WHERE tenant = $1;
