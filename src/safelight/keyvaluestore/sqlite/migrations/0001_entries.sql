CREATE TABLE entry (
  key TEXT NOT NULL,
  instance TEXT NOT NULL,
  value TEXT NOT NULL,
  ttl REAL, -- seconds; NULL is forever
  revision INTEGER NOT NULL,
  PRIMARY KEY (key, instance)
) STRICT, WITHOUT ROWID;

-- One row: the revision of the whole store.
CREATE TABLE store (revision INTEGER NOT NULL) STRICT;
