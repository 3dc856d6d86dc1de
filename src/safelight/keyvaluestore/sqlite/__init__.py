"""The embedded backend: entries in a SQLite file."""

from safelight.keyvaluestore.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
