"""The contract of a task store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from safelight.wire import (
    BatchPage,
    Delivery,
    EventPage,
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    LeaseRequest,
    NamedRecipe,
    NewTask,
    Outcome,
    Output,
    Reference,
    Settled,
    Summary,
    Task,
    TaskChange,
    TaskChanges,
    TaskCounts,
    TaskFilter,
    TaskPage,
    TaskQuery,
)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue treats failures, and what it keeps. Times in seconds."""

    max_errors: int = 5
    retry_first: float = 1.0
    retry_longest: float = 300.0
    max_deaths: int = 2
    classic_max_deaths: int = 5
    """Lapses after which a task held only by classic workers is quarantined: they cannot hand back when they stop."""
    classic_lease_duration: float = 20.0
    keep_tasks: float = 30 * 86400.0
    """Ended tasks older than this are deleted; 0 keeps them."""
    keep_events: float = 7 * 86400.0
    keep_uploading: float = 86400.0
    """Tasks whose upload never ended (the classic protocol's) are deleted after this."""
    max_waiting: int = 5_000_000
    """With so many tasks waiting, creation is refused with TOO_MANY_REQUESTS."""
    oldest_every: int = 20
    """Every so manieth lease goes to the oldest task whatever its priority, so that none waits for ever; 0: none."""


SEARCHED = 100_000
"""How many tasks one search or count looks at: so much a request may cost, however many there are."""


class TaskStore(Protocol):
    """Tasks and everything that happens to them.

    Every call is one transaction (many calls may share a commit), durable when it returns; calls of any number of
    clients appear to happen one after another. Each change of a task writes one numbered event in the same
    transaction. A task's id is opaque; so is a lease's, which is the fencing token, cannot be guessed from the task's
    and is taken wherever a task's id is.
    """

    async def create(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Create tasks, all or none.

        One whose idempotency key is known returns the task of then, whatever became of it; CONFLICT where that was
        made from another input or recipe. One whose input, recipe and engine (that of the worker seen last) match a
        finished task is finished at once with that task's outputs. Raises TOO_MANY_REQUESTS when too many wait.
        """
        ...

    async def get(self, id: str) -> Task:
        """Return a task by its own id or a lease's. Raises NOT_FOUND (`Task not found`)."""
        ...

    async def find(self, query: TaskQuery) -> TaskPage:
        """Return a page of the tasks that match every filter, newest first. Raises INVALID_REQUEST.

        A search, reason or time looks at `SEARCHED` tasks for one page at most.
        """
        ...

    async def count(self, filter: TaskFilter) -> TaskCounts:
        """Count the tasks that match a filter, among the newest `SEARCHED`. Raises INVALID_REQUEST."""
        ...

    async def change(self, change: TaskChange) -> TaskChanges:
        """Cancel, retry, release or delete many tasks. Those that are not in a state for it stay as they are."""
        ...

    async def spec(self, id: str) -> NamedRecipe:
        """Return the recipe that a task was made with. Raises NOT_FOUND."""
        ...

    async def batches(self, *, before: str | None = None, limit: int = 100, name: str | None = None) -> BatchPage:
        """Return a page of batches, or only the one of a name."""
        ...

    async def lease(self, request: LeaseRequest) -> list[Lease]:
        """Take waiting tasks, highest priority and then oldest first; see `LeaseRequest` for what `holding` does.

        As fast with a million waiting as with ten. Waits, woken, up to `request.wait` seconds for the first task.
        """
        ...

    async def lease_classic(self) -> Lease | None:
        """Take the next task that a classic worker can do, or return None when none waits."""
        ...

    async def finish_classic(
        self, id: str, outputs: Sequence[Output] = (), *, engine: str = "classic", seconds: float = 0.0
    ) -> Task:
        """End the attempt of a classic worker, named by its lease or, while a classic worker holds it, by the task.

        Without outputs the result is the picture that storage keeps under the lease's id. Repeated, nothing. Raises
        NOT_FOUND, LEASE_LOST.
        """
        ...

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Extend the leases that a worker names; tell it which are no longer in force."""
        ...

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Settled]:
        """End attempts, each for itself, accepted only from the lease in force (otherwise a LEASE_LOST problem).

        The same outcome again from the lease that it ended is accepted again: an answer may get lost.
        """
        ...

    async def ready(self, id: str) -> Task:
        """UPLOADING to WAITING; repeated, nothing. Raises NOT_FOUND, CONFLICT from a later state."""
        ...

    async def cancel(self, id: str) -> Task:
        """Cancel a task that has not ended; its lease is lost. Repeated, nothing. Raises CONFLICT once it has ended."""
        ...

    async def retry(self, id: str) -> Task:
        """FAILED, CANCELLED or QUARANTINED to WAITING, counts at zero. Raises CONFLICT from another state."""
        ...

    async def release(self, id: str) -> Task:
        """QUARANTINED to WAITING, counts at zero. Raises CONFLICT from another state."""
        ...

    async def delete(self, id: str) -> None:
        """Forget a task in any state; a lease on it is lost. Raises NOT_FOUND."""
        ...

    async def events(self, after: int, *, limit: int = 1000, wait: float = 0.0, task: str | None = None) -> EventPage:
        """Return the changes after a number, waiting, woken, up to `wait` seconds for the first."""
        ...

    async def summary(self) -> Summary:
        """Return the queue now. Costs no scan of the tasks."""
        ...

    async def referenced(self, after: int = 0, *, limit: int = 10000) -> Reference:
        """Return the digests and classic names that a page of tasks points at, in order of creation.

        A collector that reads all pages, from 0 until `next` is None, has seen every task that existed when it began
        and still exists.
        """
        ...

    async def recipes(self) -> list[NamedRecipe]:
        """Return the saved recipes by name."""
        ...

    async def save_recipe(self, recipe: NamedRecipe) -> None:
        """Save a recipe in place of what stood under its name."""
        ...

    async def delete_recipe(self, name: str) -> None:
        """Forget a saved recipe; tasks made with it keep theirs. Raises NOT_FOUND."""
        ...

    async def deliveries(self, *, n: int = 100, wait: float = 0.0, seconds: float = 60.0) -> list[Delivery]:
        """Take webhook calls that are due (one for each end of a task that has a webhook), waiting for the first."""
        ...

    async def settle_delivery(self, id: str, *, delivered: bool, retry_after: float | None = None) -> None:
        """End a webhook call. One taken by another meanwhile is left alone."""
        ...

    def wake(self) -> None:
        """Let every wait return now; the service is stopping."""
        ...
