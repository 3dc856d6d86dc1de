"""The distributed backend: tasks in a PostgreSQL database that any number of db instances share."""

from safelight.db.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
