"""db over HTTP, with the methods of `db.store.TaskStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp

from safelight.client.base import ServiceClient
from safelight.client.requests.repeating import deleted, queued_again
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

# With these, the routes of the classic protocol answer with whole tasks and with problem documents.
_FULL = {"full": "true"}
_JSON = {"Accept": "application/json"}


def _task(id: str, action: str = "") -> str:
    return f"/task/{quote(id, safe='')}{action}"


class DbClient(ServiceClient):
    """Tasks, leases, events, saved recipes and webhook deliveries."""

    async def create(self, tasks: Sequence[NewTask]) -> list[Task]:
        """Create tasks in one durable commit; see the store. It is retried if each task has an idempotency key."""
        safe = all(task.idempotency_key for task in tasks)
        return await self._connection.call("POST", "/tasks", list[Task], json=list(tasks), retry=safe)

    async def create_each(self, tasks: Sequence[NewTask]) -> list[Created]:
        """Create tasks in one durable commit, refusing each by itself; see `create`."""
        safe = all(task.idempotency_key for task in tasks)
        return await self._connection.call("POST", "/tasks/each", list[Created], json=list(tasks), retry=safe)

    async def alike(self, task: NewTask) -> Task | None:
        """Return the finished task whose outputs `create` would reuse for this one."""
        return await self._connection.call("POST", "/tasks/alike", Task | None, json=task)  # type: ignore[arg-type]

    async def keyed(self, keys: Sequence[str], *, tenant: str = DEFAULT_TENANT) -> list[Task]:
        """Return the tasks that have one of these idempotency keys, in no order."""
        return await self._connection.call("POST", "/tasks/keyed", list[Task], json=keys, params={"tenant": tenant})

    async def get(self, id: str, *, tenant: str | None = None) -> Task:
        """Return a task by its own id or by the id of one of its leases. Raises NOT_FOUND."""
        return await self._connection.call("GET", _task(id), Task, params={**_FULL, "tenant": tenant}, headers=_JSON)

    async def find(self, query: TaskQuery, *, tenant: str = DEFAULT_TENANT) -> TaskPage:
        """Return a page of the tasks that match every filter, newest first."""
        return await self._connection.call("GET", "/tasks", TaskPage, params={**query.params(), "tenant": tenant})

    async def count(self, filter: TaskFilter, *, tenant: str = DEFAULT_TENANT) -> TaskCounts:
        """Count the tasks that match a filter."""
        return await self._connection.call(
            "GET", "/tasks/counts", TaskCounts, params={**filter.params(), "tenant": tenant}
        )

    async def change(self, change: TaskChange, *, tenant: str = DEFAULT_TENANT) -> TaskChanges:
        """Cancel, retry, release or delete many tasks. Not retried automatically."""
        params = {"tenant": tenant}
        return await self._connection.call(
            "POST", "/tasks/changes", TaskChanges, params=params, json=change, retry=False
        )

    async def spec(self, id: str, *, tenant: str | None = None) -> NamedRecipe:
        """Return the recipe that a task was made with. Raises NOT_FOUND."""
        return await self._connection.call("GET", _task(id, "/spec"), NamedRecipe, params={"tenant": tenant})

    async def batches(
        self, *, before: str | None = None, limit: int = 100, name: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> BatchPage:
        """Return a page of batches, or only the one of a name."""
        params = {"before": before, "limit": limit, "name": name, "tenant": tenant}
        return await self._connection.call("GET", "/batches", BatchPage, params=params)

    async def lease(self, request: LeaseRequest) -> list[Lease]:
        """Lease waiting tasks; see the store."""
        return await self._connection.call("POST", "/lease", list[Lease], json=request, wait=request.wait)

    async def lease_classic(self, *, tenant: str = DEFAULT_TENANT) -> Lease | None:
        """Lease the next task that a classic worker can do; None if none waits. It is not retried."""
        try:
            return await self._connection.call("GET", "/task/next", Lease, params={"tenant": tenant}, retry=False)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return None

    async def classic_waits(self, *, tenant: str = DEFAULT_TENANT) -> bool:
        """Return whether `lease_classic` would return a lease now."""
        try:
            await self._connection.call("HEAD", "/task/next", bytes, params={"tenant": tenant})
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return False
        return True

    async def finish_classic(
        self, id: str, outputs: Sequence[Output] = (), *, engine: str = "classic", seconds: float = 0.0
    ) -> Task:
        """End the attempt of a classic worker. Raises NOT_FOUND, LEASE_LOST."""
        body = {"outputs": list(outputs), "engine": engine, "seconds": seconds}
        return await self._connection.call("POST", _task(id, "/finish"), Task, params=_FULL, headers=_JSON, json=body)

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Extend the leases of a worker."""
        return await self._connection.call("POST", "/heartbeat", HeartbeatAnswer, json=beat)

    async def drain(self, worker: str, *, draining: bool) -> WorkerSeen:
        """Drain a worker, or let it take leases again. Raises NOT_FOUND."""
        path = f"/workers/{quote(worker, safe='')}/" + ("drain" if draining else "resume")
        return await self._connection.call("POST", path, WorkerSeen)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Settled]:
        """End attempts; see the store."""
        return await self._connection.call("POST", "/outcomes", list[Settled], json=list(outcomes))

    async def ready(self, id: str) -> Task:
        """Let an uploaded task wait for a worker (the classic protocol)."""
        return await self._connection.call("POST", _task(id, "/ready"), Task, params=_FULL, headers=_JSON)

    async def cancel(self, id: str, *, tenant: str | None = None) -> Task:
        """Cancel a task that has not ended."""
        return await self._connection.call("POST", _task(id, "/cancel"), Task, params={"tenant": tenant})

    async def retry(self, id: str, *, tenant: str | None = None) -> Task:
        """Let a failed, cancelled or quarantined task wait again, with its counts reset."""
        params = {"tenant": tenant}
        return await queued_again(self._connection, _task(id, "/retry"), lambda: self.get(id, tenant=tenant), params)

    async def release(self, id: str, *, tenant: str | None = None) -> Task:
        """Let a quarantined task wait again, with its counts reset."""
        params = {"tenant": tenant}
        return await queued_again(self._connection, _task(id, "/release"), lambda: self.get(id, tenant=tenant), params)

    async def delete(self, id: str, *, tenant: str | None = None) -> None:
        """Delete a task."""
        await deleted(self._connection, _task(id), {"tenant": tenant})

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
        """Return the changes after a number, waiting up to `wait` seconds for the first."""
        params = {"after": after, "limit": limit, "wait": wait, "task": task, "tenant": tenant, "known": known or None}
        return await self._connection.call("GET", "/events", EventPage, params=params, wait=wait)

    async def summary(self, *, tenant: str | None = None) -> Summary:
        """Return the state of the queue and the workers."""
        return await self._connection.call("GET", "/summary", Summary, params={"tenant": tenant})

    async def confirm_clock(self) -> ClockConfirmed:
        """Confirm that the clocks are right; see the store."""
        return await self._connection.call("POST", "/clock/confirm", ClockConfirmed)

    async def clock_confirmed(self) -> ClockConfirmed:
        """Return the last confirmation."""
        return await self._connection.call("GET", "/clock", ClockConfirmed)

    async def claim_store(self, store: StoreClaim) -> StoreClaim:
        """Record the store of blobs if none is known, and return the known one; see the store."""
        return await self._connection.call("POST", "/store/claim", StoreClaim, json=store)

    async def accept_store(self, store: KnownStore) -> KnownStore:
        """Replace the known store of blobs; see the store."""
        return await self._connection.call("POST", "/store/accept", KnownStore, json=store)

    async def statistics(self, *, span: int, step: int, tenant: str = DEFAULT_TENANT) -> list[StatisticsSlot]:
        """Return counts of the last `span` seconds, in slots of `step` seconds."""
        params = {"span": span, "step": step, "tenant": tenant}
        return await self._connection.call("GET", "/statistics", list[StatisticsSlot], params=params)

    async def referenced(self, after: int = 0, *, limit: int = 10000) -> Reference:
        """Return one page of the blobs and names that tasks refer to in storage."""
        return await self._connection.call("GET", "/references", Reference, params={"after": after, "limit": limit})

    async def recipes(self, *, tenant: str = DEFAULT_TENANT) -> list[SavedRecipe]:
        """List the saved recipes by name, without their content."""
        return await self._connection.call("GET", "/recipes", list[SavedRecipe], params={"tenant": tenant})

    async def recipe(self, name: str, *, tenant: str = DEFAULT_TENANT) -> NamedRecipe:
        """Return a saved recipe. Raises NOT_FOUND."""
        path, params = f"/recipes/{quote(name, safe='')}", {"tenant": tenant}
        return await self._connection.call("GET", path, NamedRecipe, params=params)

    async def save_recipe(self, recipe: NamedRecipe, condition: Condition = ALWAYS) -> SavedRecipe:
        """Save a recipe, replacing the one of the same name.

        Raises NOT_FOUND for an unknown tenant, CONFLICT, PRECONDITION_FAILED.
        """
        path, headers = f"/recipes/{quote(recipe.name, safe='')}", condition.headers()
        return await self._connection.call("PUT", path, SavedRecipe, json=recipe, headers=headers)

    async def delete_recipe(self, name: str, *, tenant: str = DEFAULT_TENANT, condition: Condition = ALWAYS) -> None:
        """Delete a saved recipe. Raises NOT_FOUND, PRECONDITION_FAILED."""
        path, params = f"/recipes/{quote(name, safe='')}", {"tenant": tenant}
        await deleted(self._connection, path, params, condition.headers())

    @asynccontextmanager
    async def backup(self, *, wait: float = 3600.0) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the stream of a SQLite file with everything; making it may take up to `wait` seconds.

        Raises CONFLICT if the backend has no file.
        """
        async with self._connection.open("POST", "/backup", wait=wait) as response:
            yield response

    async def deliveries(
        self, *, n: int = 100, wait: float = 0.0, seconds: float = 60.0, held: Mapping[str, int] = NONE_HELD
    ) -> list[Delivery]:
        """Take webhook calls that are due, for `seconds` each; `held` counts calls in progress by tenant."""
        params = {"n": n, "wait": wait, "seconds": seconds}
        return await self._connection.call(
            "POST", "/deliveries", list[Delivery], params=params, json=dict(held), wait=wait, retry=False
        )

    async def webhook_calls(
        self,
        *,
        before: str | None = None,
        limit: int = 100,
        outcome: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> WebhookCallPage:
        """Return a page of the webhook calls that were made, newest first."""
        params = {"before": before, "limit": limit, "outcome": outcome, "tenant": tenant}
        return await self._connection.call("GET", "/webhook-calls", WebhookCallPage, params=params)

    async def resend(self, id: str, *, tenant: str = DEFAULT_TENANT) -> WebhookCall:
        """Make a webhook call again. Raises NOT_FOUND. Not repeated: it may have been made."""
        path, params = f"/webhook-calls/{quote(id, safe='')}/resend", {"tenant": tenant}
        return await self._connection.call("POST", path, WebhookCall, params=params, retry=False)

    async def settle_delivery(
        self,
        id: str,
        *,
        delivered: bool,
        retry_after: float | None = None,
        answer: WebhookAnswer = NO_ANSWER,
    ) -> None:
        """Settle a webhook call: delivered, to be repeated after `retry_after` seconds, or (None) given up."""
        body = {"delivered": delivered, "retry_after": retry_after, "answer": answer}
        await self._connection.call("POST", f"/deliveries/{quote(id, safe='')}", bytes, json=body)
