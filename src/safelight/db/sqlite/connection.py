"""The SQLite file: opened for this process alone, in the present schema, with named statements.

Rows go into SQLite many in one statement and come out as one JSON value: a statement gives the interpreter's lock up
for each step, and to get it back from a busy event loop costs more than the step (measured with 100 rows: 1.0 ms a row
for executemany, 2.7 ms for fetchall, 0.1 ms as one).
"""

from __future__ import annotations

import functools
import logging
import re
import sqlite3
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from safelight.errors import Code, Error

log = logging.getLogger(__name__)

T = TypeVar("T")

_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE; -- before WAL is entered: then it needs no shared memory
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA journal_size_limit = 67108864;
PRAGMA temp_store = MEMORY;
"""


_CHUNKS = (100, 10, 1)
"""Rows in one statement: few sizes, so that SQLite compiles few statements."""


def _sql(*place: str) -> Traversable:
    return resources.files("safelight.db.sqlite").joinpath(*place)


@functools.cache
def queries() -> dict[str, str]:
    """Return the named statements."""
    parts = re.split(r"^-- name: (\w+)\n", _sql("queries.sql").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip().rstrip(";") for part in parts[2::2]), strict=True))


@functools.cache
def _with_rows(name: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return queries()[name].replace(":rows", ", ".join([row] * rows))


def migrations() -> list[str]:
    """Return the scripts that lead from an empty file to the present schema; number N makes version N."""
    scripts = sorted(_sql("migrations").iterdir(), key=lambda script: script.name)
    return [script.read_text(encoding="utf-8") for script in scripts if script.name.endswith(".sql")]


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file of any version to the present one, each step a transaction. Raises UNAVAILABLE for a newer one."""
    steps = migrations()
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(steps):
        raise Error(Code.UNAVAILABLE, "The database was written by a newer safelight; start that version instead.")
    for number, script in enumerate(steps[version:], start=version + 1):
        log.info("Migrating the database to version %d", number)
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise


class Connection:
    """The open file and its statements. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises UNAVAILABLE with the reason."""
        self.writes = 0
        self._queries = queries()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sqlite = sqlite3.connect(
                path, timeout=0.5, isolation_level=None, check_same_thread=False, cached_statements=200
            )
            try:
                self._sqlite.executescript(_PRAGMAS)
                migrate(self._sqlite)
            except BaseException:
                self._sqlite.close()
                raise
        except (OSError, sqlite3.Error) as error:
            reason = "another process uses it" if "locked" in str(error) else str(error)
            raise Error(Code.UNAVAILABLE, f"The database {path} cannot be opened: {reason}.") from error

    def close(self) -> None:
        """Close the file."""
        self._sqlite.close()

    def begin(self) -> None:
        """Begin a transaction."""
        self._sqlite.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make what was written durable."""
        self._sqlite.execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was written; SQLite may have done so by itself."""
        if self._sqlite.in_transaction:
            self._sqlite.execute("ROLLBACK")

    def run(self, name: str, *values: object) -> int:
        """Write; return the number of rows changed."""
        self.writes += 1
        return self._sqlite.execute(self._queries[name], values).rowcount

    def write(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Write rows of equal length."""
        self.writes += 1
        start = 0
        for size in _CHUNKS:
            while len(rows) - start >= size:
                chunk = rows[start : start + size]
                values = [value for row in chunk for value in row]
                self._sqlite.execute(_with_rows(name, size, len(rows[0])), values)
                start += size

    def value(self, name: str, *values: object) -> Any:
        """Return the one value that a statement gives; None without a row."""
        row = self._sqlite.execute(self._queries[name], values).fetchone()
        return None if row is None else row[0]

    def read(self, name: str, kind: type[T], *values: object) -> T:
        """Return the one value that a statement gives, JSON of a kind."""
        return msgspec.json.decode(self.value(name, *values) or "null", type=kind)


def wrapped(error: Exception) -> Error:
    """Return what a failure of SQLite, or of its thread, is to everybody else."""
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL"):
        return Error(Code.STORAGE_FULL, "The database's disk is full; make room on it.", retry_after=5)
    return Error(Code.UNAVAILABLE, f"The database failed: {error}.")
