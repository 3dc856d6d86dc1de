"""Tasks in SQLite: created, leased, changed, found and counted."""
