-- name: last_partition
-- $1: parent
SELECT max(hi) FROM partition WHERE parent = $1 AND announced IS NULL;

-- name: insert_partition
INSERT INTO partition (name, parent, lo, hi) VALUES ($1, $2, $3, $4);

-- name: old_partition
-- $1: parent; $2: a time
SELECT name FROM partition WHERE parent = $1 AND announced IS NULL AND hi <= $2 ORDER BY lo LIMIT 1;

-- name: detached_partition
SELECT json_build_array(name, announced)::text FROM partition WHERE announced IS NOT NULL ORDER BY lo LIMIT 1;

-- name: delete_partition
DELETE FROM partition WHERE name = $1;

-- name: grown_tables
-- Tables that are several times as large as when they were analysed, while they are small. $1: how large
SELECT coalesce(json_agg(quote_ident(seen.relname)), '[]')::text
FROM pg_stat_user_tables AS seen JOIN pg_class AS class ON class.oid = seen.relid
WHERE schemaname = current_schema() AND reltuples < $1 AND n_mod_since_analyze > 100 + 4 * greatest(reltuples, 0);
