"""The state that a backend keeps in memory to avoid queries, as of the last transaction."""

from __future__ import annotations

from collections import Counter

import msgspec

from safelight.db.fairness import Turns
from safelight.db.rows import HOLD, TaskRow
from safelight.wire import DEFAULT_TENANT, State
from safelight.wire.accounts import Tenant


class Shares(msgspec.Struct, array_like=True):
    """The unused part of one tenant's limits. Times are in milliseconds."""

    requests: float
    """How many requests may still arrive, as of the time `at`."""
    at: int
    uploads: dict[str, tuple[int, int]]
    """By master: how many uploads are in progress there, and until when that counts."""


class Held:
    """What one tenant uses: tasks by state, delayed ones among those that wait, bytes."""

    def __init__(self) -> None:
        self.counts: Counter[State] = Counter()
        self.delayed = 0
        self.held = 0
        """The delayed tasks whose recipe is paused."""
        self.bytes = 0

    @property
    def available(self) -> int:
        """The number of tasks that can be leased now, unless the queue is paused."""
        return self.counts[State.WAITING] - self.delayed


class Memory:
    """Counts, numbers, tenants and specs."""

    def __init__(self) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.paused: set[str] = set()
        """The tenants whose queue is paused."""
        self.holds: dict[tuple[str, str], int] = {}
        """By tenant and paused recipe: the `due` of its waiting tasks."""
        self.turns = Turns()
        self.held: dict[str, Held] = {}
        self.counts: Counter[State] = Counter()
        self.delayed = 0
        self.shares: dict[str, Shares] = {}
        """By tenant."""
        self.held_back = 0
        """The delayed tasks whose recipe is paused."""
        self.changed_bytes: set[str] = set()
        """Tenants whose bytes must be written before the commit."""
        self.deliveries = 0
        self.last_task = 0
        self.last_event = 0
        self.removed_event = 0
        self.id = ""
        self.runs: list[tuple[str, int]] = []
        """The latest starts of the database: each has a name, and the number of the last event before it."""
        self.engine = ""
        self.spec_digests: dict[int, str] = {}
        self.spec_bodies: dict[int, str] = {}
        self.spec_bytes = 0
        """The length of these bodies together."""
        self.spec_ids: dict[str, tuple[int, int]] = {}
        """By digest: the number of the spec, and the last task for which it is kept."""
        self.unheard: dict[str, list[str]] = {}
        """By worker: its leases that have expired since its last request. It may never have received them."""

    @property
    def history(self) -> str:
        """The name that distinguishes this database from others, and from older copies of itself."""
        return self.runs[-1][0] if self.runs else self.id

    def restored(self, after: int, known: str) -> bool:
        """Return whether a reader that got event `after` from the database `known` has seen a different history.

        This is so if there is no such event, if the database that it knew is not among the starts that led to this one,
        or if this one continued from before that event.
        """
        if after > self.last_event:
            return True
        if known in ("", self.history):
            return False
        names = [name for name, _ in self.runs]
        return known not in names or self.runs[names.index(known) + 1][1] < after

    @property
    def available(self) -> int:
        """The number of tasks that can be leased now."""
        waiting = self.counts[State.WAITING] - self.delayed
        return waiting - sum(self.of(tenant).available for tenant in self.paused) if self.paused else waiting

    def available_of(self, tenant: str) -> int:
        """Return how many tasks of a tenant can be leased now."""
        return 0 if tenant in self.paused else self.of(tenant).available

    def of(self, tenant: str) -> Held:
        """Return the counts of a tenant."""
        held = self.held.get(tenant)
        if held is None:
            held = self.held[tenant] = Held()
        return held

    def keep_tenant(self, tenant: Tenant) -> None:
        """Store a new or changed tenant."""
        self.tenants[tenant.id] = tenant
        self.turns.share(tenant.id).weight = tenant.weight
        (self.paused.add if tenant.paused else self.paused.discard)(tenant.id)
        self._forget_holds(tenant.id)
        self.holds |= {(tenant.id, one.recipe): HOLD + one.number for one in tenant.pauses if not one.ended}

    def hold(self, row: TaskRow) -> int | None:
        """Return the `due` of a task if its recipe is paused; pauses do not apply to internal tasks."""
        return self.holds.get((row.tenant, row.recipe)) if self.holds and not row.internal else None

    def _forget_holds(self, tenant: str) -> None:
        for key in [key for key in self.holds if key[0] == tenant]:
            del self.holds[key]

    @property
    def draining(self) -> dict[str, float]:
        """The workers that take no more leases, and since when."""
        operators = self.tenants.get(DEFAULT_TENANT)
        return operators.draining if operators else {}

    def forget_tenant(self, id: str) -> None:
        """Forget a deleted tenant."""
        self.tenants.pop(id, None)
        self.paused.discard(id)
        self._forget_holds(id)
        self.held.pop(id, None)
        self.shares.pop(id, None)

    def forget_specs(self) -> None:
        """Forget the specs, since some were removed."""
        self.spec_digests.clear()
        self.spec_ids.clear()
        self.forget_bodies()

    def forget_bodies(self) -> None:
        """Forget the bodies of specs, since they would take too much memory."""
        self.spec_bodies.clear()
        self.spec_bytes = 0

    def set_unheard(self, worker: str, leases: list[str]) -> None:
        """Store which leases of a worker have expired since its last request."""
        if leases:
            self.unheard[worker] = leases
        else:
            self.unheard.pop(worker, None)

    def count(self, row: TaskRow, by: int, *, sized: bool = True) -> None:
        """Add a row to the counts or (negative) remove it, with its bytes if `sized`."""
        held, state = self.held.get(row.tenant) or self.of(row.tenant), row.state
        self.counts[state] += by
        held.counts[state] += by
        if row.due is not None:
            self.count_delayed(row.tenant, by)
            if row.due >= HOLD:
                self.count_held(row.tenant, by)
        if sized and (size := row.size):
            held.bytes += by * size
            self.changed_bytes.add(row.tenant)

    def count_delayed(self, tenant: str, by: int) -> None:
        """Add to the count of delayed tasks."""
        self.delayed += by
        self.of(tenant).delayed += by

    def count_held(self, tenant: str, by: int) -> None:
        """Add to the count of delayed tasks whose recipe is paused."""
        self.held_back += by
        self.of(tenant).held += by
