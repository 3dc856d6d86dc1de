"""One session with the server, and its named statements.

Many rows are written as one array for each column, and read as one JSON value that the server makes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import asyncpg
import msgspec

from safelight.db.postgres.sessions import escapes
from safelight.db.postgres.sessions.waiting import wait
from safelight.db.rows import EventRow, TaskRow
from safelight.sql import scripts

T = TypeVar("T")

PACKAGE = "safelight.db.postgres"

_JSON = {"outputs", "failure"}
_REAL = {"seconds"}
_TEXT = {
    *("lease", "worker", "settled", "settled_as", "engine", "key", "tenant", "recipe", "input", "filename"),
    *("media_type", "batch", "idempotency_key", "webhook", "kind", "traceparent"),
}
_TASK = TaskRow.__struct_fields__
_EVENT = EventRow.__struct_fields__
_CHANGING = _TASK[: _TASK.index("key")]
_FIXED = _TASK[_TASK.index("key") :]


def _type(column: str) -> str:
    return "json" if column in _JSON else "float8" if column in _REAL else "text" if column in _TEXT else "bigint"


_ESCAPED = {"json": escapes.json, "text": escapes.text}


def _arrays(columns: Sequence[str], *, after: int = 0) -> str:
    return ", ".join(f"${place}::{_type(column)}[]" for place, column in enumerate(columns, start=after + 1))


_ENTRY = 7
"""How many values `commit` has before those of rows."""


_PARTS = {
    "task_columns": ", ".join(_TASK),
    "task_arrays": _arrays(_TASK),
    "task_changing": ", ".join(_CHANGING[1:]),
    "task_changing_arrays": _arrays(_CHANGING),
    "task_new": ", ".join(f"new.{column}" for column in _CHANGING[1:]),
    "task_fixed": ", ".join(f"task.{column}" for column in _FIXED),
    "task": f"json_build_array({', '.join(_TASK)})",
    "event_columns": ", ".join(_EVENT),
    "event_arrays": _arrays(_EVENT),
    "event": f"json_build_array({', '.join(_EVENT)})",
    "commit_changed": _arrays(_CHANGING, after=_ENTRY),
    "commit_inserted": _arrays(_TASK, after=_ENTRY + len(_CHANGING)),
    "commit_events": _arrays(_EVENT, after=_ENTRY + len(_CHANGING) + len(_TASK)),
}
_COLUMNS = {"insert_tasks": _TASK, "insert_ended": _TASK, "insert_events": _EVENT}
_PART = re.compile(r"(?<!:):([a-z_]+)")
_JSON_PARAMETER = re.compile(r"\$([0-9]+)::json\b")


@functools.cache
def statements() -> dict[str, str]:
    """Return the named statements."""
    written = scripts.queries(PACKAGE)
    parts = {**_PARTS, "read_ahead": written["read_ahead"]}
    whole = {name: _PART.sub(lambda part: parts[part[1]], text) for name, text in written.items()}
    return {name: _PART.sub(lambda part: parts[part[1]], text) for name, text in whole.items()}


@functools.cache
def _json_parameters(name: str) -> frozenset[int]:
    return frozenset(int(number) - 1 for number in _JSON_PARAMETER.findall(statements()[name]))


def _by_column(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[list[object]]:
    """Return the values of rows as one array for each column."""
    if not rows:
        return [[]] * len(columns)
    return [
        list(map(_ESCAPED[kind], values)) if (kind := _type(column)) in _ESCAPED else values
        for column, values in zip(columns, map(list, zip(*rows, strict=True)), strict=True)
    ]


class Connection:
    """An open session. Its methods wait (`waiting.run`), and only one function at a time may use it."""

    def __init__(self, server: asyncpg.Connection[Any]) -> None:
        self.server = server
        self.writes = 0
        self._statements = statements()

    def begin(self, name: str, *, changes: bool) -> None:
        """Prepare for a statement; called before each. `name` is empty for one without a name."""

    def script(self, text: str) -> None:
        """Run statements without a name or values."""
        self.begin("", changes=True)
        wait(self.server.execute(text))

    def run(self, name: str, *values: object) -> int:
        """Run a statement that writes; return how many rows it changed."""
        self.begin(name, changes=True)
        status: str = wait(self.server.execute(self._statements[name], *self._given(name, values)))
        changed = int(status.rpartition(" ")[2])
        self.writes += changed > 0
        return changed

    def write(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Write rows, all of the same length."""
        self.begin(name, changes=True)
        self.writes += 1
        wait(self.server.execute(self._statements[name], *_by_column(_COLUMNS.get(name, _CHANGING), rows)))

    def commit(
        self,
        entry: Sequence[object],
        *,
        changed: Sequence[Sequence[object]],
        inserted: Sequence[Sequence[object]],
        events: Sequence[Sequence[object]],
    ) -> None:
        """Write the entry of a commit into the ledger, and the rows of tasks and events with it."""
        self.begin("commit", changes=True)
        arrays = (*_by_column(_CHANGING, changed), *_by_column(_TASK, inserted), *_by_column(_EVENT, events))
        wait(self.server.execute(self._statements["commit"], *entry, *arrays))

    def value(self, name: str, *values: object) -> Any:
        """Return the single value of a statement, or None if there is no row."""
        self.begin(name, changes=False)
        return wait(self.server.fetchval(self._statements[name], *self._given(name, values)))

    def read(self, name: str, kind: type[T], *values: object) -> T:
        """Return the single value that a statement yields, decoded from JSON as `kind`."""
        text = self.value(name, *values)
        return msgspec.json.decode("null" if text is None else escapes.whole_json(text), type=kind)

    def read_from(self, table: str, kind: type[T], *values: object) -> T:
        """Read tasks of a detached partition: `$1` is the last known number, `$2` the limit."""
        self.begin("", changes=False)
        text = wait(
            self.server.fetchval(
                f"SELECT coalesce(json_agg({_PARTS['task']}), '[]')::text FROM ("  # noqa: S608 - a name of ours
                f"SELECT * FROM {table} WHERE n > $1 ORDER BY n LIMIT $2) AS task",
                *values,
            )
        )
        return msgspec.json.decode(escapes.whole_json(text), type=kind)

    def last_number(self, table: str) -> int | None:
        """Return the number of the last event in a partition."""
        last: int | None = wait(self.server.fetchval(f"SELECT max(seq) FROM {table}"))  # noqa: S608 - a name of ours
        return last

    def attempt(self, text: str, *, lock_timeout: float) -> bool:
        """Run statements whose locks others may hold for long; return whether the locks were available in time."""
        self.script(f"SAVEPOINT attempt; SET LOCAL lock_timeout = '{round(lock_timeout * 1000)}ms'")
        try:
            self.script(text)
        except asyncpg.LockNotAvailableError:
            self.script("ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt")
            return False
        self.script("RELEASE SAVEPOINT attempt; SET LOCAL lock_timeout = DEFAULT")
        self.writes += 1
        return True

    def _given(self, name: str, values: Sequence[object]) -> list[object]:
        json = _json_parameters(name)
        return [_escaped(value, json=place in json) for place, value in enumerate(values)]


def _escaped(value: object, *, json: bool) -> object:
    if json:
        return escapes.json(value)
    return list(map(escapes.text, value)) if isinstance(value, list) else escapes.text(value)
