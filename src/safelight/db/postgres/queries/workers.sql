-- name: keep_workers
INSERT INTO worker SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::float8[])
ON CONFLICT (id) DO UPDATE SET info = excluded.info, last_seen = excluded.last_seen;

-- name: workers
-- $1: the time since which they were seen
SELECT coalesce(json_agg(json_build_object('worker', info::json, 'first_seen', first_seen, 'last_seen', last_seen)
  ORDER BY last_seen), '[]')::text FROM worker WHERE last_seen >= $1;

-- name: forget_workers
DELETE FROM worker WHERE last_seen < $1;
