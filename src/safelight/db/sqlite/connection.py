"""The SQLite file, opened exclusively for this process, with named statements.

One statement writes many rows, and rows are read as one JSON value. The sqlite3 module releases the interpreter's lock
at each step of a statement, and reacquiring it from a busy event loop costs more than the step itself (measured with
100 rows: 1.0 ms a row for executemany, 2.7 ms for fetchall, 0.1 ms as one value).
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from safelight.db.rows import EventRow, TaskRow
from safelight.sql import scripts, sqlite

T = TypeVar("T")

PACKAGE = "safelight.db.sqlite"

_PRAGMAS = """
PRAGMA cache_size = -65536;
PRAGMA journal_size_limit = 67108864;
PRAGMA temp_store = MEMORY;
"""

_DURABLE = ("PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 4000")
_NOT_DURABLE = ("PRAGMA synchronous = NORMAL", "PRAGMA wal_autocheckpoint = 0")
"""A checkpoint flushes the log, and nobody learns if that fails. After a durable commit there is nothing to flush."""

_CHUNKS = (100, 50, 20, 10, 5, 2, 1)
"""How many rows one statement writes. There are only a few sizes, so that SQLite compiles only a few statements.

If each client creates one task at a time, a commit has a few rows. Writing them one by one would cost more than all
other work of db on them.
"""


_JSON = {"outputs", "failure"}


def _as_json(table: str, kind: type[msgspec.Struct]) -> str:
    """Return the expression for a row as one value.

    It is not a generated column, because SQLite computes those at each write too, and discards them.
    """
    columns = ((f"{table}.{name}", name in _JSON) for name in kind.__struct_fields__)
    return f"json_array({', '.join(f'json({column})' if json else column for column, json in columns)})"


_PARTS = {"task": _as_json("task", TaskRow), "event": _as_json("event", EventRow)}
_PART = re.compile(r":(task|event)\b")


@functools.cache
def statements() -> dict[str, str]:
    """Return the named statements; those that write many rows contain `:rows` in their place."""
    return {name: _PART.sub(lambda part: _PARTS[part[1]], text) for name, text in scripts.queries(PACKAGE).items()}


@functools.cache
def _with_rows(name: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statements()[name].replace(":rows", ", ".join([row] * rows))


class Connection:
    """The open file and its named statements. Only one thread at a time may use it."""

    def __init__(self, path: Path, *, readonly: bool = False, foreign: bool = False) -> None:
        """Open or create the file; `readonly` is for a copy that nobody changes. Raises UNAVAILABLE.

        A `foreign` file is untrusted: raise DAMAGED_BLOB if its schema is not db's.
        """
        self.writes = 0
        self._durable: bool | None = None
        self._hole: sqlite3.Error | None = None
        """Why the log could not be begun anew, if it may have a hole."""
        self._written = 0
        """`writes` when the transaction began."""
        self._path = path
        self._queries = statements()
        if readonly:
            self._sqlite = sqlite.read(path, PACKAGE, foreign=foreign)
        else:
            self._sqlite = sqlite.connect(path, PACKAGE, pragmas=_PRAGMAS, foreign=foreign)
        self.place = sqlite.Place(path)
        self.log = sqlite.Log(self._sqlite)

    def close(self) -> None:
        """Close the file."""
        self._sqlite.close()

    def begin(self, *, durable: bool = True) -> None:
        """Begin a transaction. After the commit, a power cut can undo it only if it is not `durable`."""
        if durable is not self._durable:
            for pragma in _DURABLE if durable else _NOT_DURABLE:
                self._sqlite.execute(pragma)
            self._durable = durable
        if durable:
            self._renew_log()
        self._written = self.writes
        self._sqlite.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit, durably if the transaction was begun so.

        Then UNAVAILABLE is raised if the file is gone, and sqlite3.Error if rows were written behind a hole in the log.
        """
        if self._durable:
            self.place.check()
            if self._hole is not None and self.writes != self._written:
                raise self._hole
        self._sqlite.execute("COMMIT")

    def _renew_log(self) -> None:
        """Begin a doubted log anew; a transaction that only reads does not need that."""
        try:
            self.log.renew()
            self._hole = None
        except sqlite3.Error as error:
            self._hole = error

    def rollback(self) -> None:
        """Roll back, unless SQLite has already done so."""
        if self._sqlite.in_transaction:
            self._sqlite.execute("ROLLBACK")

    def check(self) -> None:
        """Check the whole file. Raises DAMAGED_BLOB."""
        sqlite.check(self._sqlite, self._path)

    def copy(self, target: Path, between: Callable[[], None]) -> None:
        """Copy the file; see `sqlite.copy`."""
        sqlite.copy(self._sqlite, target, between)

    def rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a statement without a name."""
        return iter(self._sqlite.execute(statement))

    def write_rows(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement without a name for each of some rows."""
        self._sqlite.executemany(statement, rows)

    def run(self, name: str, *values: object) -> int:
        """Run a statement that writes; return how many rows it changed."""
        changed = self._sqlite.execute(self._queries[name], values).rowcount
        self.writes += changed != 0  # -1 means that SQLite does not count them
        return changed

    def write(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Write rows, all of the same length."""
        self.writes += 1
        if len(rows) == 1:  # as in most calls
            self._sqlite.execute(_with_rows(name, 1, len(rows[0])), rows[0])
            return
        start = 0
        for size in _CHUNKS:
            while len(rows) - start >= size:
                values = tuple(chain.from_iterable(rows[start : start + size]))
                self._sqlite.execute(_with_rows(name, size, len(rows[0])), values)
                start += size

    def value(self, name: str, *values: object) -> Any:
        """Return the single value of a statement, or None if there is no row."""
        row = self._sqlite.execute(self._queries[name], values).fetchone()
        return None if row is None else row[0]

    def read(self, name: str, kind: type[T], *values: object) -> T:
        """Return the single value that a statement yields, decoded from JSON as `kind`."""
        return msgspec.json.decode(self.value(name, *values) or "null", type=kind)
