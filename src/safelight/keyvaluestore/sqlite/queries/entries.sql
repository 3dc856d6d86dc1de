-- The statements of the SQLite backend, each below its name.

-- name: entries
SELECT key, instance, value, ttl, revision FROM entry;

-- name: set_entry
INSERT OR REPLACE INTO entry (key, instance, value, ttl, revision) VALUES (?1, ?2, ?3, ?4, ?5);

-- name: delete_entry
DELETE FROM entry WHERE key = ?1 AND instance = ?2;

-- name: revision
SELECT revision FROM store;

-- name: first_revision
INSERT INTO store (revision) VALUES (?1);

-- name: set_revision
UPDATE store SET revision = ?1;
