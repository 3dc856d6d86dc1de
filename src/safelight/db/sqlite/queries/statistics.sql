-- name: statistics_at
-- ?1: pairs of tenant and slot
SELECT json_group_array(json_array(tenant, slot, json(body))) FROM (
  SELECT statistic.* FROM json_each(?1) AS wanted CROSS JOIN statistic
  ON statistic.tenant = wanted.value->>0 AND statistic.slot = wanted.value->>1
);

-- name: statistics
-- ?1: tenant; ?2: first slot
SELECT json_group_array(json_array(tenant, slot, json(body))) FROM statistic WHERE tenant = ?1 AND slot >= ?2;

-- name: keep_statistic
INSERT INTO statistic (tenant, slot, body) VALUES (?1, ?2, ?3) ON CONFLICT (tenant, slot) DO UPDATE SET body = ?3;

-- name: delete_statistics
DELETE FROM statistic WHERE slot < ?1;

-- name: delete_statistics_of_tenant
DELETE FROM statistic WHERE tenant = ?1;
