"""The SQLite file: opened for this process alone, with named statements.

Rows go into SQLite many in one statement and come out as one JSON value: a statement gives the interpreter's lock up
for each step, and to get it back from a busy event loop costs more than the step (measured with 100 rows: 1.0 ms a row
for executemany, 2.7 ms for fetchall, 0.1 ms as one).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from safelight import sqlfiles, sqlitefile

T = TypeVar("T")

_PACKAGE = "safelight.db.sqlite"

_PRAGMAS = """
PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA journal_size_limit = 67108864;
PRAGMA temp_store = MEMORY;
"""

_CHUNKS = (100, 10, 1)
"""Rows in one statement: few sizes, so that SQLite compiles few statements."""


@functools.cache
def _with_rows(name: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return sqlfiles.queries(_PACKAGE)[name].replace(":rows", ", ".join([row] * rows))


class Connection:
    """The open file and its statements. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises UNAVAILABLE with the reason."""
        self.writes = 0
        self._queries = sqlfiles.queries(_PACKAGE)
        self._sqlite = sqlitefile.connect(path, _PACKAGE, pragmas=_PRAGMAS)

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
