"""A task store whose calls run in transactions. Each backend defines how they are run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from safelight import tracing
from safelight.client.availability.reachability import Reachability
from safelight.db import lifecycle
from safelight.db.calls import clock, delivering, known_store, recipes, statistics
from safelight.db.calls.accounts import AccountCalls
from safelight.db.calls.lease_queue import LeaseQueue
from safelight.db.calls.notifier import Notifier
from safelight.db.calls.tasks import batches, changing, creating, leasing, reading, searching
from safelight.db.commit.transaction import Reads, Transaction
from safelight.db.lifecycle import Change
from safelight.db.rows import EventRow, TaskRow
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.wire import (
    DEFAULT_TENANT,
    NO_ANSWER,
    NONE_HELD,
    BatchPage,
    ClockConfirmed,
    Created,
    Delivery,
    EventPage,
    Finished,
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
    Returned,
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

log = logging.getLogger(__name__)

_DRAINED_WAIT = 2.0
"""Seconds after which a draining worker asks again, in case another instance has let it take leases."""

P = ParamSpec("P")
T = TypeVar("T")

Observe = Callable[[int, Sequence[EventRow]], None]
"""Called after each commit with the number of its calls and its events."""


def unobserved(_calls: int, _events: Sequence[EventRow]) -> None:
    """Observe nothing."""


class CallStore:
    """The calls of `store.TaskStore`. A backend defines how they run: `_submit` and, if needed, `_look`, `_listen`."""

    reachability: Reachability | None = None
    """Whether the server behind the store answers; None if there is none."""

    def __init__(self, policy: Policy, observe: Observe) -> None:
        self._policy = policy
        self._observe = observe
        self._queue = LeaseQueue(self._claim, self._return)
        self._events = Notifier()
        self._webhooks = Notifier()
        self._drained = Notifier()
        self.accounts = AccountCalls(self._submit, self._look)

    def _submit(
        self,
        work: Callable[[Transaction], T],
        *,
        lost: Callable[[T], None] | None = None,
        durable: bool = True,
        reads: Reads | None = None,
    ) -> asyncio.Future[T]:
        """Run a call in one of the next commits. If its caller was cancelled by then, `lost` receives the result.

        A power cut may undo a call that is not `durable`, until a later durable one is committed. `reads` is what the
        call is known to read.
        """
        raise NotImplementedError

    def _look(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        """Run a call that only reads committed data."""
        return self._submit(work, durable=False)

    async def _listen(self) -> None:
        """Prepare for a wait: later commits of other instances wake the callers here."""

    async def create(self, tasks: Sequence[NewTask]) -> list[Task]:
        """See the contract."""
        with tracing.each("commit task", (task.traceparent for task in tasks)):
            create = partial(creating.create, tasks=tasks, policy=self._policy)
            return await self._submit(create, reads=Reads(tasks=tasks))

    async def create_each(self, tasks: Sequence[NewTask]) -> list[Created]:
        """See the contract."""
        with tracing.each("commit task", (task.traceparent for task in tasks)):
            create = partial(creating.create_each, tasks=tasks, policy=self._policy)
            return await self._submit(create, reads=Reads(tasks=tasks))

    async def alike(self, task: NewTask) -> Task | None:
        """See the contract."""
        return await self._read(creating.alike, task)

    async def keyed(self, keys: Sequence[str], *, tenant: str = DEFAULT_TENANT) -> list[Task]:
        """See the contract."""
        return await self._read(creating.keyed, keys, tenant)

    async def get(self, id: str, *, tenant: str | None = None) -> Task:
        """See the contract."""
        return await self._read(reading.get, id, tenant)

    async def find(self, query: TaskQuery, *, tenant: str = DEFAULT_TENANT) -> TaskPage:
        """See the contract."""
        return await self._read(searching.find, query, tenant)

    async def count(self, filter: TaskFilter, *, tenant: str = DEFAULT_TENANT) -> TaskCounts:
        """See the contract."""
        return await self._read(searching.count, filter, tenant)

    async def change(self, change: TaskChange, *, tenant: str = DEFAULT_TENANT) -> TaskChanges:
        """See the contract."""
        return await self._do(changing.change, change, tenant)

    async def spec(self, id: str, *, tenant: str | None = None) -> NamedRecipe:
        """See the contract."""
        return await self._read(reading.spec, id, tenant)

    async def batches(
        self, *, before: str | None = None, limit: int = 100, name: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> BatchPage:
        """See the contract."""
        return await self._read(batches.page, before, limit, name, tenant)

    async def lease(self, request: LeaseRequest) -> list[Lease]:
        """See the contract."""
        if request.wait > 0:
            await self._listen()
        queue_is_empty = not self._queue

        def arrive(transaction: Transaction) -> list[Lease] | None:
            leasing.arrive(transaction, request, self._policy)
            if request.worker.id in transaction.memory.draining:
                return None
            return leasing.claim(transaction, request, self._policy) if queue_is_empty else []

        # A power cut that undoes a lease only repeats work. Deaths that were taken back must stay so.
        durable = bool(request.holding)
        reads = Reads(leases=request.holding, worker=request.worker.id, claims=request.n if queue_is_empty else 0)
        leases = await self._submit(
            arrive, lost=lambda leases: self._return(leases or []), durable=durable, reads=reads
        )
        if leases is None:
            await self._drained.wait(self._drained.count, min(request.wait, _DRAINED_WAIT))
            return []
        if leases or request.wait <= 0 or request.n == 0:
            return leases
        return await self._queue.wait(request)

    async def drain(self, worker: str, *, draining: bool) -> WorkerSeen:
        """See the contract."""
        seen = {each.worker.id for each in await self._read(leasing.workers)}
        if worker not in seen:
            raise Error(Code.NOT_FOUND, "There is no worker of this id; it may have stopped.")
        await self._do(leasing.drain, worker, seen, draining=draining)
        if draining:
            self._queue.dismiss(worker)
        else:
            self._drained.notify()
        return next(each for each in await self._read(leasing.workers) if each.worker.id == worker)

    async def lease_classic(self, *, tenant: str = DEFAULT_TENANT) -> Lease | None:
        """See the contract."""

        def lost(lease: Lease | None) -> None:
            self._return([lease] if lease else [])

        claim = partial(leasing.claim_classic, tenant=tenant, policy=self._policy)
        return await self._submit(claim, lost=lost)

    async def classic_waits(self, *, tenant: str = DEFAULT_TENANT) -> bool:
        """See the contract."""
        return await self._do(leasing.classic_waits, tenant)

    async def finish_classic(
        self, id: str, outputs: Sequence[Output] = (), *, engine: str = "classic", seconds: float = 0.0
    ) -> Task:
        """See the contract."""
        finished = Finished(lease=id, outputs=list(outputs), engine=engine, seconds=seconds)
        done = await self._do(leasing.finish_classic, id, finished, self._policy)
        if isinstance(done, Error):
            raise done
        return done

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """See the contract."""
        return await self._do(leasing.heartbeat, beat, self._policy)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Settled]:
        """See the contract."""
        settle = partial(leasing.settle, outcomes=outcomes, policy=self._policy)
        return await self._submit(settle, reads=Reads(leases=[outcome.lease for outcome in outcomes]))

    async def ready(self, id: str) -> Task:
        """See the contract."""
        return await self._do(_change, id, None, lifecycle.ready)

    async def cancel(self, id: str, *, tenant: str | None = None) -> Task:
        """See the contract."""
        return await self._do(_change, id, tenant, lifecycle.cancelled)

    async def retry(self, id: str, *, tenant: str | None = None) -> Task:
        """See the contract."""
        return await self._do(_change, id, tenant, lifecycle.retried)

    async def release(self, id: str, *, tenant: str | None = None) -> Task:
        """See the contract."""
        return await self._do(_change, id, tenant, lifecycle.released)

    async def delete(self, id: str, *, tenant: str | None = None) -> None:
        """See the contract."""
        await self._do(_delete, id, tenant)

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
        """See the contract."""
        deadline = time.monotonic() + wait
        if wait > 0:
            await self._listen()
        while True:
            seen = self._events.count
            page = await self._read(reading.events, after, limit, task, tenant, known)
            behind = page.last - after >= reading.LOOKED_THROUGH
            if page.events or page.restored or behind or not await self._events.wait(seen, deadline - time.monotonic()):
                return page

    async def summary(self, *, tenant: str | None = None) -> Summary:
        """See the contract."""
        return await self._read(reading.summary, tenant)

    async def confirm_clock(self) -> ClockConfirmed:
        """See the contract."""
        return await self._do(clock.confirm)

    async def clock_confirmed(self) -> ClockConfirmed:
        """See the contract."""
        return await self._read(clock.confirmed)

    async def claim_store(self, store: StoreClaim) -> StoreClaim:
        """See the contract."""
        known = await self._read(known_store.known)
        return known if known.id or not store.id else await self._do(known_store.claim, store)

    async def accept_store(self, store: KnownStore) -> KnownStore:
        """See the contract."""
        return await self._do(known_store.accept, store)

    async def statistics(self, *, span: int, step: int, tenant: str = DEFAULT_TENANT) -> list[StatisticsSlot]:
        """See the contract."""
        while await self._do(statistics.count):
            pass
        return await self._read(statistics.find, tenant, span, step)

    async def referenced(self, after: int = 0, *, limit: int = 10000) -> Reference:
        """See the contract."""
        return await self._read(reading.referenced, after, limit)

    async def recipes(self, *, tenant: str = DEFAULT_TENANT) -> list[SavedRecipe]:
        """See the contract."""
        return await self._read(recipes.find_all, tenant)

    async def recipe(self, name: str, *, tenant: str = DEFAULT_TENANT) -> NamedRecipe:
        """See the contract."""
        return await self._read(recipes.find, name, tenant)

    async def save_recipe(self, recipe: NamedRecipe, condition: Condition = ALWAYS) -> SavedRecipe:
        """See the contract."""
        return await self._do(recipes.save, recipe, condition)

    async def delete_recipe(self, name: str, *, tenant: str = DEFAULT_TENANT, condition: Condition = ALWAYS) -> None:
        """See the contract."""
        await self._do(recipes.delete, name, tenant, condition)

    async def deliveries(
        self, *, n: int = 100, wait: float = 0.0, seconds: float = 60.0, held: Mapping[str, int] = NONE_HELD
    ) -> list[Delivery]:
        """See the contract."""
        deadline = time.monotonic() + wait
        if wait > 0:
            await self._listen()
        while True:
            seen = self._webhooks.count
            due = await self._do(delivering.take, n, seconds, held)
            if due or not await self._webhooks.wait(seen, deadline - time.monotonic()):
                return due

    async def settle_delivery(
        self,
        id: str,
        *,
        delivered: bool,
        retry_after: float | None = None,
        answer: WebhookAnswer = NO_ANSWER,
    ) -> None:
        """See the contract."""
        await self._do(delivering.settle, id, delivered=delivered, retry_after=retry_after, answer=answer)

    async def webhook_calls(
        self,
        *,
        before: str | None = None,
        limit: int = 100,
        outcome: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> WebhookCallPage:
        """See the contract."""
        return await self._read(delivering.calls, before, limit, outcome, tenant)

    async def resend(self, id: str, *, tenant: str = DEFAULT_TENANT) -> WebhookCall:
        """See the contract."""
        return await self._do(delivering.resend, id, tenant)

    def wake(self) -> None:
        """See the contract."""
        self._queue.close()
        self._events.close()
        self._webhooks.close()
        self._drained.close()

    async def _do(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._submit(lambda transaction: work(transaction, *args, **kwargs))

    async def _read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._look(lambda transaction: work(transaction, *args, **kwargs))

    def _claim(self, request: LeaseRequest) -> asyncio.Future[list[Lease]]:
        claim = partial(leasing.claim, request=request, policy=self._policy)
        return self._submit(claim, durable=False, reads=Reads(claims=request.n))

    def _return(self, leases: Sequence[Lease]) -> None:
        if leases:
            outcomes = [Returned(lease=lease.id) for lease in leases]
            back = self._submit(partial(leasing.settle, outcomes=outcomes, policy=self._policy))
            back.add_done_callback(_forget)


def _change(
    transaction: Transaction, id: str, tenant: str | None, transition: Callable[[TaskRow], Change | None]
) -> Task:
    row = transaction.task(id, tenant)
    change = transition(row)
    if change is not None:
        (row,) = transaction.apply([change])
    return transaction.record(row)


def _delete(transaction: Transaction, id: str, tenant: str | None) -> None:
    transaction.apply([Change(kind="deleted", old=transaction.task(id, tenant))])


def _forget(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("Leases whose worker had disconnected could not be returned and will expire: %s", error)
