"""Cache the tasks that one transaction has read and changed, so that many calls share a statement.

A statement is a round trip, and the calls of a commit would make eight for each task. Instead, one statement reads
ahead the rows that the calls are known to read, and changed rows are written together: before the commit, or before a
statement that could read them. A statement that changes tasks directly invalidates the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import asyncpg

from safelight.db import ids
from safelight.db.commit.transaction import Computed, Reads, TenantKey, encoded
from safelight.db.lifecycle import Change
from safelight.db.postgres import ledger
from safelight.db.postgres.lanes import Key
from safelight.db.postgres.ledger import SharedMemory
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.postgres.sessions.failures import Concerns, Postponed, concerns
from safelight.db.rows import TaskRow, Value
from safelight.wire import State

_T = TypeVar("_T")

Moves = dict[tuple[bool | None, bool | None], dict[int, TaskRow | None]]
"""New rows (None: deleted) by number, by where they are in the database and where they belong: whether among those that
have ended, or None for nowhere.
"""

_APART = frozenset({
    "commit", "committed", "delete_ended", "delete_tasks", "end_tasks", "ended_by_number", "insert_delivery",
    "insert_ended", "insert_events", "insert_partition", "insert_tasks", "keep_spec", "keep_workers", "last_partition",
    "live_by_number", "load", "meta", "notify", "read_ahead", "refresh", "refresh_and_read_ahead", "set_meta",
    "spec_body", "spec_by_digest", "spec_digest", "update_tasks", "waiting", "waiting_by_number", "waiting_classic",
    "waiting_oldest",
})  # fmt: skip
"""Statements that neither read nor change tasks, and those of this module and `PostgresTransaction`, which handle the
order themselves.
"""


class OrderedConnection(Connection):
    """The connection of one transaction, which writes postponed changes before a statement that could read them."""

    def __init__(self, connection: Connection, write: Callable[[], None], forget: Callable[[], None]) -> None:
        super().__init__(connection.server)
        self._write, self._forget = write, forget

    def begin(self, name: str, *, changes: bool) -> None:
        """Write postponed changes, and forget rows that the statement may change."""
        if name not in _APART:
            self._write()
            if changes:
                self._forget()


class Found(NamedTuple):
    """The rows that were read ahead."""

    with_keys: list[TaskRow] | None
    alike: list[TaskRow] | None
    """Finished ones of the same computations."""
    live: list[TaskRow] | None
    held: list[TaskRow] | None


class Begun(NamedTuple):
    """The answer of `refresh_and_read_ahead`."""

    now: int
    entries: list[ledger.Numbered] | None
    found: Found


class Wanted(NamedTuple):
    """What to read ahead for the calls of a commit."""

    keys: set[TenantKey]
    alike: set[Computed]
    engine: str
    numbers: list[int]
    workers: dict[str, int]
    """By worker: the number of the change from which its leases are."""

    def values(self) -> tuple[object, ...]:
        """Return the values of the statement."""
        held = encoded(list(self.workers.items()))
        return encoded(list(self.keys)), encoded(list(self.alike)), self.engine, self.numbers, held


def wanted(memory: SharedMemory, reads: Sequence[Reads]) -> Wanted | None:
    """Return what to read ahead for calls, or None if there is nothing."""
    tasks = [task for each in reads for task in each.tasks]
    keys = {(task.tenant, task.idempotency_key) for task in tasks if task.idempotency_key is not None}
    alike: set[Computed] = set()
    if memory.engine:
        for task in tasks:
            if task.reuse and task.input is not None and (spec := memory.spec_ids.get(task.recipe_digest)):
                alike.add((task.tenant, task.input.digest, spec[0]))
    references = (ids.parse(lease) for each in reads for lease in each.leases)
    numbers = list({reference.n for reference in references if reference is not None})
    workers = {each.worker: memory.held_since.get(each.worker, 0) for each in reads if each.worker is not None}
    if not (keys or alike or numbers or workers):
        return None
    return Wanted(keys=keys, alike=alike, engine=memory.engine, numbers=numbers, workers=workers)


def refresh_and_read_ahead(connection: Connection, memory: SharedMemory, wanted: Wanted) -> tuple[int | None, Found]:
    """Do `ledger.refresh`, and read rows ahead, in one statement."""
    values = (*wanted.values(), memory.version)
    begun = attributed_to_none(lambda: connection.read("refresh_and_read_ahead", Begun, *values))
    return (begun.now if ledger.learn(memory, begun.entries) else None), begun.found


class Rows:
    """The tasks that one transaction knows, and those that are not written yet."""

    def __init__(self, *, postpone: bool) -> None:
        """With `postpone`, write changes later and together. Otherwise a failure belongs to the call that writes."""
        self._postpone = postpone
        self.known: dict[int, TaskRow | None] = {}
        """Current rows by number; None for a task that no longer exists."""
        self.held: dict[str, set[int]] = {}
        """The tasks on which a worker has leases, for the workers that were read."""
        self._keys: dict[TenantKey, int | None] = {}
        self._computed: dict[Computed, TaskRow | None] = {}
        self._engine = ""
        self._unwritten: dict[int, tuple[bool | None, TaskRow | None]] = {}
        """By number: whether the task has ended in the database (None: it has no row there), and the new row."""
        self._waiting_unwritten = False

    def forget(self) -> None:
        """Forget the rows that were read."""
        for known in (self.known, self.held, self._keys, self._computed):
            known.clear()

    def read_ahead(self, connection: Connection, wanted: Wanted | None) -> None:
        """Read ahead the rows that calls will read, in one statement."""
        if wanted is not None and self._postpone:
            self.learn(wanted, attributed_to_none(lambda: connection.read("read_ahead", Found, *wanted.values())))

    def learn(self, wanted: Wanted, found: Found) -> None:
        """Remember the rows that were read ahead."""
        with_keys, alike, live, held = found
        self.forget()
        self._engine = wanted.engine
        self._keys = dict.fromkeys(wanted.keys)
        self._keys |= {(row.tenant, row.idempotency_key or ""): row.n for row in with_keys or ()}
        self._computed = dict.fromkeys(wanted.alike)
        self._computed |= {(row.tenant, row.input or "", row.spec): row for row in alike or ()}
        self.held = {worker: set() for worker in wanted.workers}
        for row in held or ():
            self.held[row.worker or ""].add(row.n)
        self.known = {row.n: row for rows in (with_keys, live, held) for row in rows or ()}

    def of_keys(self, keys: Sequence[TenantKey]) -> list[TaskRow] | None:
        """Return the rows with these idempotency keys, or None if unknown."""
        if any(key not in self._keys for key in keys):
            return None
        numbers = (self._keys[key] for key in keys)
        return [row for n in numbers if n is not None and (row := self.known[n]) is not None]

    def alike(self, wanted: Sequence[Computed], engine: str) -> list[TaskRow] | None:
        """Return the finished rows of these computations, or None if unknown."""
        if engine != self._engine or any(each not in self._computed for each in wanted):
            return None
        return [row for each in wanted if (row := self._computed[each]) is not None]

    def of_worker(self, worker: str) -> list[TaskRow] | None:
        """Return the rows on which a worker has leases, or None if unknown."""
        numbers = self.held.get(worker)
        return None if numbers is None else [row for n in numbers if (row := self.known[n]) is not None]

    def now(self, row: TaskRow) -> TaskRow | None:
        """Return the current state of a row that was read as waiting, or None if it can no longer be leased."""
        now = self.known.get(row.n, row)
        return now if now is not None and available(now) else None

    def change(self, pairs: Sequence[tuple[Change, TaskRow]], connection: Connection) -> None:
        """Record changes, to be written later."""
        for change, row in pairs:
            old, new = change.old, None if change.new is None else row
            place = None if old is None else ended(old)
            self._unwritten[row.n] = (self._unwritten[row.n][0] if row.n in self._unwritten else place), new
            self._waiting_unwritten = self._waiting_unwritten or (new is not None and available(new))
            self._learn(row.n, old, new)
        if not self._postpone:
            self._write(connection, self._moves())

    def _learn(self, n: int, old: TaskRow | None, new: TaskRow | None) -> None:
        self.known[n] = new
        if old is not None and old.worker in self.held:
            self.held[old.worker].discard(n)
        if new is not None and new.state is State.WORKING and new.worker in self.held:
            self.held[new.worker].add(n)
        row = new or old
        assert row is not None
        if row.idempotency_key is not None and (key := (row.tenant, row.idempotency_key)) in self._keys:
            self._keys[key] = None if new is None else n
        if row.input is not None and (row.tenant, row.input, row.spec) in self._computed:
            del self._computed[row.tenant, row.input, row.spec]

    def waiting(self, tenant: str, key: Key, since: int) -> list[TaskRow]:
        """Return the unwritten tasks of a lane that can be leased, from a number on and in order."""
        if not self._waiting_unwritten:
            return []
        rows = (row for _, row in self._unwritten.values() if row is not None and row.n >= since and available(row))
        return sorted(
            (row for row in rows if row.tenant == tenant and (row.priority, row.interactive) == key),
            key=lambda row: row.n,
        )

    def write(self, connection: Connection) -> None:
        """Write postponed changes."""
        if self._unwritten:
            moves = self._moves()
            attributed_to_none(lambda: self._write(connection, moves))

    def write_waiting(self, connection: Connection) -> None:
        """Write postponed changes if they include tasks that can be leased."""
        if self._waiting_unwritten:
            self.write(connection)

    def take(self, connection: Connection) -> tuple[list[list[Value]], list[list[Value]]]:
        """Return the changed and the new rows, for the statement that ends the commit; write other changes now."""
        moves = self._moves()
        changed = [row for place in (False, True) for row in moves.pop((False, place), {}).values()]
        inserted = moves.pop((None, False), {}).values()
        if moves:
            attributed_to_none(lambda: self._write(connection, moves))
        return [row.changing_values() for row in changed if row], [row.values() for row in inserted if row]

    def _moves(self) -> Moves:
        """Return the postponed changes, which are no longer postponed then."""
        unwritten, self._unwritten = self._unwritten, {}
        self._waiting_unwritten = False
        moves: Moves = {}
        for n, (old, new) in unwritten.items():
            moves.setdefault((old, None if new is None else ended(new)), {})[n] = new
        return moves

    @staticmethod
    def _write(connection: Connection, moves: Moves) -> None:
        # New rows come last, since one may have the idempotency key of a deleted one.
        for (old, place), changes in sorted(moves.items(), key=lambda move: move[0][0] is None):
            rows = [row for row in changes.values() if row is not None]
            if old is False and place is not None:
                name = "end_tasks" if place else "update_tasks"
                connection.write(name, [row.changing_values() for row in rows])
                continue
            if old is not None:
                connection.run("delete_ended" if old else "delete_tasks", list(changes))
            if rows:
                connection.write("insert_ended" if place else "insert_tasks", [row.values() for row in rows])


def attributed_to_none(call: Callable[[], _T]) -> _T:
    """Run statements of several calls. If the server refuses one, its call is unknown."""
    try:
        return call()
    except (asyncpg.PostgresError, asyncpg.DataError) as error:
        if concerns(error) is Concerns.CALL:
            raise Postponed from error
        raise


def ended(row: TaskRow) -> bool:
    """Return whether a task has ended, so that its row is in the table `ended`."""
    return row.state >= State.FINISHED


def available(row: TaskRow) -> bool:
    """Return whether a task can be leased now."""
    return row.state is State.WAITING and row.due is None
