"""The contract of a task store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from safelight.wire import (
    DEFAULT_TENANT,
    NO_ANSWER,
    NONE_HELD,
    BatchPage,
    ClockConfirmed,
    Created,
    Delivery,
    EventPage,
    Heartbeat,
    HeartbeatAnswer,
    KnownStore,
    Lease,
    LeaseRequest,
    NamedRecipe,
    NewTask,
    Outcome,
    Output,
    Reference,
    SavedRecipe,
    Settled,
    StoreClaim,
    Summary,
    Task,
    TaskChange,
    TaskChanges,
    TaskCounts,
    TaskFilter,
    TaskPage,
    TaskQuery,
    WebhookAnswer,
    WebhookCall,
    WebhookCallPage,
    WorkerSeen,
)
from safelight.wire.conditions import ALWAYS, Condition
from safelight.wire.statistics import StatisticsSlot


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue treats failures, and how long it keeps old data. Times are in seconds."""

    max_errors: int = 5
    retry_first: float = 1.0
    retry_longest: float = 300.0
    max_deaths: int = 2
    classic_max_deaths: int = 5
    """Expired leases after which a task that only classic workers held is quarantined.

    It is larger than `max_deaths` because classic workers cannot return a lease when they stop.
    """
    classic_lease_duration: float = 20.0
    keep_tasks: float = 30 * 86400.0
    """Tasks that ended longer ago than this are deleted; 0 keeps them forever."""
    keep_events: float = 7 * 86400.0
    keep_uploading: float = 86400.0
    """Tasks of the classic protocol whose upload never ended are deleted after this."""
    max_waiting: int = 5_000_000
    """While this many tasks wait, new ones are refused with TOO_MANY_REQUESTS."""
    oldest_every: int = 20
    """One in this many leases of a tenant goes to its oldest task, so that no task waits forever; 0: none."""
    keep_audit: float = 90 * 86400.0
    """Entries of the audit log older than this are deleted; 0 keeps them."""


SEARCHED = 100_000
"""How many tasks one search or count examines, which limits its cost however many there are."""


class TaskStore(Protocol):
    """Tasks and everything that happens to them.

    Every call is one transaction, durable when it returns; several calls may share a commit. Calls from any number of
    clients appear to happen one after another. Each change of a task writes one numbered event in the same
    transaction. The ids of tasks and leases are opaque. A lease's id is its fencing token: it cannot be guessed from
    the task's id, and every method that takes the id of a task accepts it.

    Everything belongs to a tenant. A call that names a tenant sees only its data; where None is allowed, it means all
    tenants. Idempotency keys, names of recipes and the reuse of results are per tenant.
    """

    async def create(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Create tasks, all or none.

        A task whose idempotency key was used before is not created again: the existing task is returned, whatever its
        state. A task whose input, recipe and engine (that of the worker seen last) match a finished task of the same
        tenant is finished on creation, with that task's outputs. Raises CONFLICT if a key was used for another input,
        recipe, priority, batch or webhook, TOO_MANY_REQUESTS if too many tasks wait or a limit of the tenant is
        reached, FORBIDDEN for a tenant that does not exist.
        """
        ...

    async def create_each(self, tasks: Sequence[NewTask]) -> list[Created]:
        """Create tasks like `create`, but refuse each by itself. What is left of a limit goes to the first of them."""
        ...

    async def alike(self, task: NewTask) -> Task | None:
        """Return the finished task whose outputs `create` would reuse for this one, or None."""
        ...

    async def keyed(self, keys: Sequence[str], *, tenant: str = DEFAULT_TENANT) -> list[Task]:
        """Return the tasks that have one of these idempotency keys, in no order."""
        ...

    async def get(self, id: str, *, tenant: str | None = None) -> Task:
        """Return a task by its own id or a lease's. Raises NOT_FOUND."""
        ...

    async def find(self, query: TaskQuery, *, tenant: str = DEFAULT_TENANT) -> TaskPage:
        """Return a page of the tasks that match every filter, newest first. Raises INVALID_REQUEST.

        One page examines at most `SEARCHED` tasks: with a search, reason or time the newest, and otherwise, if there
        are several filters, those that have the batch or one of the states.
        """
        ...

    async def count(self, filter: TaskFilter, *, tenant: str = DEFAULT_TENANT) -> TaskCounts:
        """Count the tasks that match a filter, among the newest `SEARCHED`. Raises INVALID_REQUEST."""
        ...

    async def change(self, change: TaskChange, *, tenant: str = DEFAULT_TENANT) -> TaskChanges:
        """Cancel, retry, release or delete many tasks. Tasks in a state that does not allow it stay as they are."""
        ...

    async def spec(self, id: str, *, tenant: str | None = None) -> NamedRecipe:
        """Return the recipe that a task was made with. Raises NOT_FOUND."""
        ...

    async def batches(
        self, *, before: str | None = None, limit: int = 100, name: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> BatchPage:
        """Return a page of batches, or only the one of a name.

        One page counts about `SEARCHED` tasks at most: it ends before a batch that would exceed them, and of a batch
        that has more than these, only the newest are counted.
        """
        ...

    async def lease(self, request: LeaseRequest) -> list[Lease]:
        """Lease waiting tasks: `fairness` chooses the tenant, `lifecycle` the task.

        Wait up to `request.wait` seconds for the first task. `LeaseRequest` explains `holding`. Recipes of several
        megabytes make the answer shorter. A lease costs the same whether ten tasks wait or a million.
        """
        ...

    async def lease_classic(self, *, tenant: str = DEFAULT_TENANT) -> Lease | None:
        """Lease the next task for a classic worker, for `Policy.classic_lease_duration`; None if none waits."""
        ...

    async def classic_waits(self, *, tenant: str = DEFAULT_TENANT) -> bool:
        """Return whether `lease_classic` would return a lease now."""
        ...

    async def finish_classic(
        self, id: str, outputs: Sequence[Output] = (), *, engine: str = "classic", seconds: float = 0.0
    ) -> Task:
        """End the attempt of a classic worker.

        `id` is the lease's id or, while a classic worker holds the task, the task's. Without outputs, the result is the
        image that storage has under the lease's id. Calling it again changes nothing. Raises NOT_FOUND, LEASE_LOST.
        """
        ...

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Extend the leases that a worker names, and return those that are no longer in force."""
        ...

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Settled]:
        """End attempts, independently of one another. An outcome is accepted only from the lease in force.

        An outcome of any other lease gets a LEASE_LOST problem and changes nothing. A repeated outcome of the lease
        that it ended is accepted again, because an answer may get lost.
        """
        ...

    async def drain(self, worker: str, *, draining: bool) -> WorkerSeen:
        """Drain a worker, or let it take leases again; it keeps the leases that it holds.

        Calling it again changes nothing. Raises NOT_FOUND if no worker of this id was seen lately.
        """
        ...

    async def ready(self, id: str) -> Task:
        """Move a task from UPLOADING to WAITING. Calling it again changes nothing.

        Raises NOT_FOUND; CONFLICT from a later state.
        """
        ...

    async def cancel(self, id: str, *, tenant: str | None = None) -> Task:
        """Cancel a task that has not ended; its lease is lost. Calling it again changes nothing.

        Raises NOT_FOUND; CONFLICT if it has ended otherwise.
        """
        ...

    async def retry(self, id: str, *, tenant: str | None = None) -> Task:
        """Move a FAILED, CANCELLED or QUARANTINED task to WAITING and reset its counts.

        Raises NOT_FOUND; CONFLICT from another state.
        """
        ...

    async def release(self, id: str, *, tenant: str | None = None) -> Task:
        """Move a QUARANTINED task to WAITING and reset its counts. Raises NOT_FOUND; CONFLICT from another state."""
        ...

    async def delete(self, id: str, *, tenant: str | None = None) -> None:
        """Delete a task in any state; a lease on it is lost. Raises NOT_FOUND."""
        ...

    async def events(
        self,
        after: int,
        *,
        limit: int = 1000,
        wait: float = 0.0,
        task: str | None = None,
        tenant: str | None = None,
        known: str = "",
    ) -> EventPage:
        """Return the changes after a number, of all tasks or of one, waiting up to `wait` seconds for the first.

        `known` is the `db` of the page that ended with this number. If the database has been replaced by an older copy
        since, the page says so at once. A page of one tenant's changes may be empty although more follow after its
        `last`: continue from there.
        """
        ...

    async def summary(self, *, tenant: str | None = None) -> Summary:
        """Return the state of the queue, without scanning the tasks."""
        ...

    async def confirm_clock(self) -> ClockConfirmed:
        """Store a person's confirmation that the clocks are right, so that db and storage delete old data again.

        A later jump of a clock suspends deletion again.
        """
        ...

    async def clock_confirmed(self) -> ClockConfirmed:
        """Return the last confirmation."""
        ...

    async def claim_store(self, store: StoreClaim) -> StoreClaim:
        """Return the known store of blobs, which is the first one that claimed to be it.

        A claim without an id only asks. A store that has worked with another database does not become the known one:
        this database may be new because the disk of the other one is not mounted.
        """
        ...

    async def accept_store(self, store: KnownStore) -> KnownStore:
        """Replace the known store of blobs, because a person says that the photos of the old one are gone."""
        ...

    async def statistics(self, *, span: int, step: int, tenant: str = DEFAULT_TENANT) -> list[StatisticsSlot]:
        """Return counts of the last `span` seconds (a week at most) in slots of `step` seconds, oldest first.

        Slots begin at multiples of `step`, which is a multiple of 300; the last one is the current one. Empty slots are
        left out. Everything that was committed before the call is counted.
        """
        ...

    async def referenced(self, after: int = 0, *, limit: int = 10000) -> Reference:
        """Return the digests and classic names that one page of tasks refers to, in order of creation.

        A collector that reads all pages, from 0 until `next` is None, has seen every task that existed when it began
        and still exists.
        """
        ...

    async def recipes(self, *, tenant: str = DEFAULT_TENANT) -> list[SavedRecipe]:
        """List the saved recipes in order of their names, without their content, which may be long."""
        ...

    async def recipe(self, name: str, *, tenant: str = DEFAULT_TENANT) -> NamedRecipe:
        """Return a saved recipe. Raises NOT_FOUND."""
        ...

    async def save_recipe(self, recipe: NamedRecipe, condition: Condition = ALWAYS) -> SavedRecipe:
        """Save a recipe, replacing the one of the same name. Its `changed` becomes later than that of the replaced one.

        Raises NOT_FOUND if there is no such tenant, CONFLICT if it would have more recipes, or more bytes of them,
        than may be saved, and PRECONDITION_FAILED if the condition does not hold for the one that would be replaced,
        unless that is the same already.
        """
        ...

    async def delete_recipe(self, name: str, *, tenant: str = DEFAULT_TENANT, condition: Condition = ALWAYS) -> None:
        """Delete a saved recipe; tasks created with it keep it. Raises NOT_FOUND, PRECONDITION_FAILED."""
        ...

    async def deliveries(
        self, *, n: int = 100, wait: float = 0.0, seconds: float = 60.0, held: Mapping[str, int] = NONE_HELD
    ) -> list[Delivery]:
        """Take up to `n` webhook calls that are due, waiting up to `wait` seconds for the first.

        There is one call for each end of a task that has a webhook. A call that is not settled within `seconds` is due
        again. Tenants take turns, and none gets more than its share (`shares`) of the caller's places: `n` are free,
        and `held` counts those in use by each tenant.
        """
        ...

    async def settle_delivery(
        self,
        id: str,
        *,
        delivered: bool,
        retry_after: float | None = None,
        answer: WebhookAnswer = NO_ANSWER,
    ) -> None:
        """Settle a webhook call: delivered, due again after `retry_after` seconds, or (None) given up.

        `answer` is stored for `webhook_calls`. A call that another master has taken meanwhile does not change.
        """
        ...

    async def webhook_calls(
        self,
        *,
        before: str | None = None,
        limit: int = 100,
        outcome: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> WebhookCallPage:
        """Return a page of the calls that were made, newest first. Raises INVALID_REQUEST."""
        ...

    async def resend(self, id: str, *, tenant: str = DEFAULT_TENANT) -> WebhookCall:
        """Make a webhook call again, at once; return its current record. Raises NOT_FOUND."""
        ...

    def wake(self) -> None:
        """End every wait now; the service is stopping."""
        ...


@runtime_checkable
class Snapshots(Protocol):
    """The method of a store whose data is one file. Servers have backup tools instead."""

    async def snapshot(self, target: Path) -> None:
        """Make a consistent copy of everything in a new file while other calls continue.

        Raises UNAVAILABLE, STORAGE_FULL; `target` is not a valid copy then.
        """
        ...
