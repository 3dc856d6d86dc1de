"""The ledger, by which instances inform each other of their commits.

Each commit that writes adds one entry to the table `ledger`: the numbers that it used, the counts of the affected
tenants and the tasks that wait now. An instance that begins a transaction reads the entries since its last one, so its
memory (`Memory`) reflects the whole database; if no other instance has committed, there are none to read. Entries are
only appended and read from the end, so they cost the same while dead rows cannot be removed.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from safelight.db.commit.memory import Held, Memory, Shares
from safelight.db.postgres.lanes import Lanes
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.rows import TaskRow
from safelight.wire import State
from safelight.wire.accounts import Tenant

COMPLETE_EVERY = 250
"""After so many commits, an entry has the counts of all tenants; a starting instance reads from there."""
SWEEP = 60.0
"""Seconds between two looks at times that have passed, for what was missed."""
_RUNS_KEPT = 20
_MOST = 1000
"""The most entries to read at once; an instance further behind loads everything again."""


class Waits(msgspec.Struct, array_like=True, frozen=True):
    """A task that can be leased from now on."""

    tenant: str
    priority: int
    interactive: int
    classic: int
    n: int


class TenantCounts(msgspec.Struct, array_like=True):
    """The counts of a tenant: tasks by state, delayed ones, bytes, and delayed ones of paused recipes."""

    states: dict[int, int]
    delayed: int
    bytes: int
    held: int = 0

    @classmethod
    def of(cls, held: Held) -> TenantCounts:
        """Return the counts in memory."""
        return cls({int(state): n for state, n in held.counts.items() if n}, held.delayed, held.bytes, held.held)


class Entry(msgspec.Struct, omit_defaults=True):
    """The changes of one commit that other instances need."""

    last_event: int = 0
    last_task: int = 0
    removed_event: int = 0
    deliveries: int = 0
    engine: str = ""
    counts: dict[str, TenantCounts] = {}
    tenants: list[Tenant] = []
    forgotten: list[str] = []
    shares: dict[str, Shares] = {}
    waits: list[Waits] = []
    unheard: dict[str, list[str]] = {}
    """`Memory.unheard` of some workers; an empty list for one that was heard."""


Numbered = tuple[int, Entry]


class SharedMemory(Memory):
    """An instance's memory of the database, and the changes in it that the other instances do not know yet."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        """The last known commit."""
        self.lanes: dict[str, Lanes] = {}
        """Lanes of the tenants whose waiting tasks were searched."""
        self.partitioned: dict[str, int] = {}
        """By table: the time up to which it has partitions."""
        self.earliest = 0
        """The beginning of the newest partition; no change gets an earlier time."""
        self.held_since: dict[str, int] = {}
        """By worker: the number of the change before which it has no leases."""
        self.expired_until = self.due_until = self.delivered_until = 0
        """Times up to which no lease expires, no task is delayed and no webhook call is due any more."""
        self._sweep_at = 0.0
        self.ledger_from = 0
        """The first entry that may still exist."""
        self.uploading_from = 0
        self.look_again_at = 0.0
        self.new_run = False
        """Whether the latest of `runs` is not stored yet."""
        self._counted: set[str] = set()
        self._tenants: dict[str, Tenant | None] = {}
        self._shared: set[str] = set()
        self._waits: list[Waits] = []
        self._heard: set[str] = set()
        """Workers whose `unheard` has changed."""

    def count(self, row: TaskRow, by: int, *, sized: bool = True) -> None:
        """Add a row to the counts or (negative) remove it, with its bytes if `sized`."""
        super().count(row, by, sized=sized)
        self._counted.add(row.tenant)

    def count_delayed(self, tenant: str, by: int) -> None:
        """Add to the count of delayed tasks."""
        super().count_delayed(tenant, by)
        self._counted.add(tenant)

    def count_held(self, tenant: str, by: int) -> None:
        """Add to the count of delayed tasks whose recipe is paused."""
        super().count_held(tenant, by)
        self._counted.add(tenant)

    def calls_from(self) -> int:
        """Return the time from which to look for due webhook calls.

        Once a minute it is 0, because another instance may have added a call while the clock was set back.
        """
        if (now := time.monotonic()) >= self._sweep_at:
            self._sweep_at = now + SWEEP
            self.delivered_until = 0
        return self.delivered_until

    def keep_tenant(self, tenant: Tenant) -> None:
        """Note a new or changed tenant."""
        super().keep_tenant(tenant)
        self._tenants[tenant.id] = tenant

    def forget_tenant(self, id: str) -> None:
        """Forget a tenant that has nothing."""
        super().forget_tenant(id)
        self.lanes.pop(id, None)
        self._tenants[id] = None

    def share(self, tenant: str, shares: Shares) -> None:
        """Store the unused part of a tenant's limits."""
        self.shares[tenant] = shares
        self._shared.add(tenant)

    def set_unheard(self, worker: str, leases: list[str]) -> None:
        """Note which leases of a worker have expired since it was last heard."""
        super().set_unheard(worker, leases)
        self._heard.add(worker)

    def waits(self, row: TaskRow) -> None:
        """Record a task that can be leased from now on."""
        self._waits.append(Waits(row.tenant, row.priority, row.interactive, row.classic, row.n))
        self._add(self._waits[-1])

    def _add(self, task: Waits) -> None:
        lanes = self.lanes.get(task.tenant)
        if lanes is not None:
            lanes.add((task.priority, task.interactive), task.n, classic=bool(task.classic))

    def apply(self, version: int, entry: Entry) -> None:
        """Apply the changes of another commit."""
        self.version = version
        self.last_event, self.last_task = entry.last_event, entry.last_task
        self.removed_event, self.deliveries, self.engine = entry.removed_event, entry.deliveries, entry.engine
        for tenant in entry.tenants:
            super().keep_tenant(tenant)
        for tenant_id in entry.forgotten:
            super().forget_tenant(tenant_id)
            self.lanes.pop(tenant_id, None)
        self.shares |= entry.shares
        for worker, leases in entry.unheard.items():
            super().set_unheard(worker, leases)
        for name, counts in entry.counts.items():
            self._set(name, counts)
        for task in entry.waits:
            self._add(task)

    def _set(self, tenant: str, counts: TenantCounts) -> None:
        held = self.of(tenant)
        for state in State:
            now = counts.states.get(state, 0)
            self.counts[state] += now - held.counts[state]
            held.counts[state] = now
        self.delayed += counts.delayed - held.delayed
        self.held_back += counts.held - held.held
        held.delayed, held.bytes, held.held = counts.delayed, counts.bytes, counts.held

    @property
    def tells_of_tenants(self) -> bool:
        """Whether a tenant's change, such as resuming its queue, is not known to the other instances yet."""
        return bool(self._tenants)

    def entry(self) -> tuple[Entry, bool]:
        """Return the changes that others do not know yet, and whether all tenants' counts are among them."""
        complete = (self.version + 1) % COMPLETE_EVERY == 0
        unheard = self._heard | (self.unheard.keys() if complete else set())
        entry = Entry(
            last_event=self.last_event,
            last_task=self.last_task,
            removed_event=self.removed_event,
            deliveries=self.deliveries,
            engine=self.engine,
            counts={name: self._counts(name) for name in (self.held if complete else self._counted)},
            tenants=[tenant for tenant in self._tenants.values() if tenant is not None],
            shares={
                name: self.shares[name] for name in (self.shares if complete else self._shared & self.shares.keys())
            },
            forgotten=[name for name, tenant in self._tenants.items() if tenant is None],
            waits=self._waits,
            unheard={worker: self.unheard.get(worker, []) for worker in unheard},
        )
        return entry, complete

    def _counts(self, tenant: str) -> TenantCounts:
        return TenantCounts.of(self.of(tenant))

    def entered(self, version: int) -> None:
        """Record that the other instances can read all of it now."""
        self.version = version
        self._counted.clear()
        self._tenants.clear()
        self._shared.clear()
        self._waits = []
        self._heard.clear()
        self.changed_bytes.clear()


def load(connection: Connection) -> SharedMemory:
    """Load the memory from the database."""
    memory = SharedMemory()
    memory.id, copy, runs, tenants, entries, memory.earliest = connection.read(
        "load", tuple[str, str, list[tuple[str, int]] | None, list[Tenant], list[Numbered], int]
    )
    for tenant in tenants:
        Memory.keep_tenant(memory, tenant)
    for version, entry in entries:
        memory.apply(version, entry)
    memory.ledger_from = entries[0][0]
    memory.runs = runs or []
    run = f"{memory.id}-{copy}"
    if not memory.runs or memory.runs[-1][0] != run:
        memory.runs = [*memory.runs[-_RUNS_KEPT:], (run, memory.last_event)]
        memory.new_run = True
    return memory


def refresh(connection: Connection, memory: SharedMemory) -> int | None:
    """Apply the commits of other instances; return the time in milliseconds, or None if there is a gap."""
    now, entries = connection.read("refresh", tuple[int, list[Numbered] | None], memory.version)
    return now if learn(memory, entries) else None


def learn(memory: SharedMemory, entries: list[Numbered] | None) -> bool:
    """Apply the commits of other instances; return False if there is a gap."""
    for version, entry in entries or ():
        if version != memory.version + 1:
            return False
        memory.apply(version, entry)
    return entries is None or len(entries) < _MOST


def payload(value: Any) -> str:
    """Encode an entry for its table."""
    return msgspec.json.encode(value).decode()
