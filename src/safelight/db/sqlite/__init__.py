"""The embedded backend: tasks in a SQLite file."""

from safelight.db.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
