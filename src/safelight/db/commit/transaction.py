"""One transaction, through which the calls of one commit read and write."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from safelight.db import ids
from safelight.db.commit.memory import Memory, Shares
from safelight.db.lifecycle import LEASED, Change
from safelight.db.rows import HOLD, EventRow, TaskRow, Value
from safelight.errors import Code, Error
from safelight.wire import ENDED, NewTask, State, Task, WorkerSeen
from safelight.wire.accounts import Tenant

_SPEC_KEPT_FOR = 1000
"""The number of further tasks for which to mark a spec as used, so that most new tasks do not have to update it."""
_CACHED_SPECS = 500
_CACHED_DIGESTS = 10_000
_CACHED_BODIES = 32 * 1024 * 1024
"""The most bytes of specs to cache. One of several megabytes takes milliseconds to read."""
COUNT_EVERY = 5000
"""Milliseconds after which maintenance counts new events (`statistics`)."""


T = TypeVar("T")

DueDelivery = tuple[int, str, int]
"""The number, tenant and due time of a webhook call."""
WebhookRow = tuple[int, str, int, Task]
"""The number, URL, attempts so far and task of a webhook call."""


TenantKey = tuple[str, str]
"""A tenant and an idempotency key."""
Computed = tuple[str, str, int]
"""The identity of a computation: a tenant, the digest of an input and the number of a spec."""


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """The data that a call will probably read. It may read more or less."""

    tasks: Sequence[NewTask] = ()
    """New tasks: rows with their idempotency keys, and equal finished ones."""
    leases: Sequence[str] = ()
    """Ids of leases whose tasks it reads."""
    worker: str | None = None
    """A worker whose tasks it reads."""
    claims: int = 0
    """How many waiting tasks it takes."""


class Connection(Protocol):
    """An open database with the named statements of a backend."""

    writes: int
    """The number of statements that have written."""

    def run(self, name: str, *values: object) -> int:
        """Run a statement that writes; return how many rows it changed."""
        ...

    def write(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Write rows, all of the same length."""
        ...

    def value(self, name: str, *values: object) -> Any:
        """Return the single value of a statement, or None if there is no row."""
        ...

    def read(self, name: str, kind: type[T], *values: object) -> T:
        """Return the single value of a statement, decoded from JSON as `kind`."""
        ...


class Transaction:
    """The state that the calls of one commit share. Times are in milliseconds."""

    def __init__(
        self,
        connection: Connection,
        memory: Memory,
        workers: dict[str, WorkerSeen],
        now: int,
        *,
        steady: int | None = None,
    ) -> None:
        self.connection = connection
        self.memory = memory
        self.workers = workers
        self.now = self.stamp = now
        """The time for people, and the one that changes and events get."""
        self.steady = now if steady is None else steady
        """The time by which leases expire and delayed tasks become due. It never jumps."""
        self.events: list[EventRow] = []
        self.soonest: int | None = None
        """The earliest time at which this transaction has scheduled maintenance."""
        self.passed = False
        """Whether it did the maintenance; `foreseen` is then the time of the next one, or None."""
        self.foreseen: int | None = None
        self.webhooks = False
        """Whether it created a webhook call."""
        self.available = 0
        """The number of tasks that can be leased after it."""
        self._unwritten = 0

    def mark(self) -> tuple[int, int]:
        """Return the numbers of statements and events written so far."""
        return self.connection.writes, self.memory.last_event

    def tasks(self, query: str, *values: object) -> list[TaskRow]:
        """Read rows by a named statement."""
        return self.connection.read(query, list[TaskRow], *values)

    def tasks_by_number(self, numbers: Iterable[int]) -> dict[int, TaskRow]:
        """Read rows by their numbers; unknown numbers are left out."""
        return {row.n: row for row in self.tasks("tasks_by_number", encoded(list(numbers)))}

    def tasks_by_key(self, keys: Sequence[TenantKey]) -> list[TaskRow]:
        """Read the rows that have one of these idempotency keys."""
        return self.tasks("tasks_by_idempotency_key", encoded(keys))

    def finished_alike(self, wanted: Sequence[Computed], engine: str) -> list[TaskRow]:
        """Read a finished row for each of these computations that an engine has done."""
        return self.tasks("finished_alike", encoded(wanted), engine)

    def waiting(self, tenant: str, n: int) -> list[TaskRow]:
        """Return the first `n` waiting tasks of a tenant, in the order in which they are leased."""
        return self.tasks("waiting", tenant, n)

    def waiting_oldest(self, tenant: str, n: int) -> list[TaskRow]:
        """Return the oldest `n` waiting tasks of a tenant."""
        return self.tasks("waiting_oldest", tenant, n)

    def waiting_classic(self, tenant: str) -> TaskRow | None:
        """Return the first waiting task of a tenant that a classic worker can process."""
        return next(iter(self.tasks("waiting_classic", tenant, 1)), None)

    def leave(self, rows: Sequence[TaskRow]) -> None:
        """Report that tasks which `waiting` returned were not leased."""

    def come_back(self, rows: Sequence[TaskRow]) -> None:
        """Report that waiting tasks can be leased from now on."""

    def held_by(self, worker: str) -> list[TaskRow]:
        """Return the tasks that a worker has leases on."""
        return self.tasks("held_by", worker)

    def due_deliveries(self, n: int) -> list[DueDelivery]:
        """Return up to `n` due webhook calls of each tenant, in no order."""
        return self.connection.read("due_deliveries", list[DueDelivery], self.steady, n)

    def all_taken(self) -> None:
        """Report that all due webhook calls were taken."""

    def quoted(self, letter: str) -> str:
        """Quote a letter for a pattern of the database: `GLOB`."""
        return glob.escape(letter)

    def oldest_waiting(self, tenant: str) -> int | None:
        """Return when a tenant's oldest waiting task began to wait, or None if none can be leased."""
        at: int | None = self.connection.value("oldest_waiting", tenant)
        return at

    def task(self, id: str, tenant: str | None = None) -> TaskRow:
        """Read the row of a task by its id or the id of a lease. Raises NOT_FOUND, also if it is another tenant's."""
        reference = ids.parse(id)
        row = None if reference is None else self.tasks_by_number([reference.n]).get(reference.n)
        if row is None or reference is None or row.key != reference.key or tenant not in (None, row.tenant):
            raise Error(Code.NOT_FOUND, f"There is no task {id[:64]}.")
        return row

    def apply(self, changes: Sequence[Change]) -> list[TaskRow]:
        """Write changes with their events and, for tasks that end, their webhook calls; return the new rows."""
        if not changes:
            return []
        self.schedule(self.steady + COUNT_EVERY)
        changed = [self._number(change) for change in changes]
        pairs = list(zip(changes, changed, strict=True))
        self._write_tasks(pairs)
        for change, row in pairs:
            if row.webhook is None:
                continue
            if row.state in ENDED and (change.old is None or change.old.state not in ENDED):
                task = encoded(self.record(row))
                self.connection.run("insert_delivery", self.now, self.steady, row.webhook, task, row.tenant)
                self.memory.deliveries += 1
                self.webhooks = True
        return changed

    def _write_tasks(self, pairs: Sequence[tuple[Change, TaskRow]]) -> None:
        self._write("insert_tasks", [row.values() for change, row in pairs if change.old is None])
        # Each task is leased at least once, so write only the columns that a lease changes.
        leased = [row.leased_values() for change, row in pairs if change.kind == LEASED]
        self._write("lease_tasks", leased)
        if len(leased) < len(pairs):
            others = (row for change, row in pairs if change.old and change.new and change.kind != LEASED)
            self._write("update_tasks", [row.changing_values() for row in others])
        if gone := [row.n for change, row in pairs if change.new is None]:
            self.connection.run("delete_tasks", encoded(gone))

    def _number(self, change: Change) -> TaskRow:
        memory = self.memory
        memory.last_event += 1
        row = change.new or change.old
        assert row is not None
        row = row.evolve(seq=memory.last_event, changed=self.stamp)
        if row.state is State.WAITING and row.due is None and change.new is not None:
            row = row.evolve(due=memory.hold(row)) if memory.holds else row
        old = change.old
        # Most changes do not affect a task's bytes, so skip the sums then.
        sized = old is None or change.new is None or old.outputs is not row.outputs or old.input_size != row.input_size
        if old is not None:
            memory.count(old, -1, sized=sized)
        if change.new is not None:
            memory.count(row, 1, sized=sized)
            if (at := row.expires or row.due) is not None and at < HOLD:
                self.schedule(at)
        held = old is not None and old.lease is not None
        self.events.append(
            EventRow(
                seq=row.seq,
                at=self.stamp,
                n=row.n,
                key=row.key,
                state=row.state,
                recipe=row.recipe,
                batch=row.batch,
                internal=row.internal,
                tenant=row.tenant,
                attempt=row.attempts,
                worker=(old.worker if held and old else row.worker) or "",
                kind=change.kind,
                failure=change.failure,
                seconds=change.seconds,
            )
        )
        return row

    def schedule(self, at: int) -> None:
        """Schedule maintenance at a time."""
        if self.soonest is None or at < self.soonest:
            self.soonest = at

    def finish(self) -> None:
        """Write postponed changes, before the commit."""
        self.write_events()
        for tenant in self.memory.changed_bytes:
            self.connection.run("keep_bytes", tenant, self.memory.of(tenant).bytes)
        self.memory.changed_bytes.clear()
        self.available = self.memory.available

    def write_events(self) -> None:
        """Write the events of the transaction so far: before a call reads events, or once for the whole commit."""
        self._write("insert_events", self.unwritten_events())

    def unwritten_events(self) -> list[list[Value]]:
        """Return the events that are not written yet. They are taken to be written then."""
        events, self._unwritten = self.events[self._unwritten :], len(self.events)
        return [event.values() for event in events]

    def _write(self, query: str, rows: Sequence[Sequence[object]]) -> None:
        if rows:
            self.connection.write(query, rows)

    def record(self, row: TaskRow) -> Task:
        """Return the record of a task."""
        return row.task(self.spec_digest(row))

    def spec_digest(self, row: TaskRow) -> str:
        """Return the digest of a task's spec, without reading the body."""
        known = self.memory.spec_digests
        digest = known.get(row.spec)
        if digest is None:
            if len(known) >= _CACHED_DIGESTS:
                known.clear()
            digest = known[row.spec] = self.connection.read("spec_digest", str, row.spec)
        return digest

    def spec_body(self, row: TaskRow) -> str:
        """Return a task's spec as JSON."""
        memory = self.memory
        body = memory.spec_bodies.get(row.spec)
        if body is None:
            body = self.connection.read("spec_body", str, row.spec)
            if memory.spec_bytes + len(body) > _CACHED_BODIES:
                memory.forget_bodies()
            memory.spec_bodies[row.spec] = body
            memory.spec_bytes += len(body)
        return body

    def spec_id(self, digest: str, body: msgspec.Raw, last_task: int) -> int:
        """Return the number of a spec that tasks up to `last_task` will use, storing it if it is new."""
        known = self.memory.spec_ids
        number, until = known.get(digest, (0, 0))
        if until < last_task:
            until = last_task + _SPEC_KEPT_FOR
            self.connection.run("keep_spec", digest, bytes(body).decode(), until)
            number = self.connection.value("spec_by_digest", digest)
            if len(known) >= _CACHED_SPECS:
                known.clear()
            known[digest] = number, until
        return number

    def keep_shares(self, tenant: str, shares: Shares) -> None:
        """Store the unused part of a tenant's limits."""
        self.memory.shares[tenant] = shares

    def keep_tenant(self, tenant: Tenant) -> None:
        """Store a new or changed tenant."""
        self.connection.run("keep_tenant", tenant.id, encoded(tenant))
        self.memory.keep_tenant(tenant)

    def set_meta(self, name: str, value: object) -> None:
        """Set a value that belongs to the whole database."""
        self.connection.run("set_meta", name, value)

    def keep_unheard(self) -> None:
        """Store the changed `memory.unheard`, since a restart may come before the worker's next request."""
        self.connection.run("set_meta", "unheard", encoded(self.memory.unheard))


def encoded(value: object) -> str:
    """Encode a value as JSON text."""
    return msgspec.json.encode(value).decode()
