"""The file of entries: read when it is opened, and written by statements. Call this on one thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safelight.sql import scripts, sqlite

_PACKAGE = "safelight.keyvaluestore.sqlite"

Statement = tuple[str, Sequence[Any]]
"""The name of a query and its values."""

Row = tuple[str, str, str, float | None, int]
"""Key, instance, value, time to live in seconds, revision."""


def open_file(path: Path, foreign: bool = False) -> tuple[sqlite3.Connection, list[Row], int]:  # noqa: FBT001, FBT002 - called in a thread
    """Open the file; return it with its entries and its revision. `foreign` is as in `sqlite.connect`.

    Raises UNAVAILABLE, DAMAGED_BLOB.
    """
    queries = scripts.queries(_PACKAGE)
    database = sqlite.connect(path, _PACKAGE, timeout=0, foreign=foreign)
    try:
        revision = database.execute(queries["revision"]).fetchone()
        if revision is None:
            # A store that is set up again must not repeat a revision that a watcher remembers. The time in microseconds
            # is larger than any of them, since nobody changes a store a million times a second.
            revision = (time.time_ns() // 1_000,)
            database.execute(queries["first_revision"], revision)
        return database, database.execute(queries["entries"]).fetchall(), revision[0]
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.Error):
            raise sqlite.wrapped(error, "the key-value store") from error
        raise


def commit(database: sqlite3.Connection, place: sqlite.Place, log: sqlite.Log, statements: Sequence[Statement]) -> None:
    """Run statements in one durable transaction. Raises STORAGE_FULL; UNAVAILABLE, also where the file is gone."""
    queries = scripts.queries(_PACKAGE)
    place.check()
    try:
        log.renew()
        database.execute("BEGIN IMMEDIATE")
        try:
            for name, values in statements:
                database.execute(queries[name], values)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise sqlite.wrapped(error, "the key-value store") from error
