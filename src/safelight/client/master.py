"""The Python client of safelight: the requests of people and workers to the master.

async with Client.connect("localhost:8003") as safelight:
    task = await safelight.upload(Path("photo.jpg"), recipe="web")
    task = await safelight.wait(task.id)
    await safelight.save(task.id, Path("photo.webp"))
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import aiohttp

from safelight.client.availability.retrying import retrying
from safelight.client.base import Connection, ServiceClient
from safelight.client.requests.ends import Ends
from safelight.client.requests.repeating import deleted, queued_again
from safelight.client.requests.uploads import EXTRA_WAIT, Source, Upload, form_fields, multipart
from safelight.errors import Code, Error
from safelight.files.replacing import emptied, replaced
from safelight.untrusted import filenames, photos
from safelight.wire import (
    Batch,
    BatchPage,
    ClockConfirmed,
    Event,
    EventPage,
    Heartbeat,
    HeartbeatAnswer,
    KnownStore,
    Lease,
    LeaseRequest,
    NamedRecipe,
    Outcome,
    Settled,
    State,
    StorageInfo,
    Summary,
    Task,
    TaskChanges,
    TaskCounts,
    TaskFilter,
    TaskPage,
    TaskQuery,
    Uploaded,
    WebhookCall,
    WebhookCallPage,
    WorkerSeen,
)
from safelight.wire.conditions import unchanged

_CHUNK = 1 << 18
_ROOM = 16  # bytes that saving may add to a name: a number


def _task(id: str, action: str = "") -> str:
    return f"/task/{quote(id, safe='')}{action}"


class Client(ServiceClient):
    """Uploads, tasks, results, recipes and live events; leases for workers."""

    def __init__(self, connection: Connection) -> None:
        """Send requests over a connection."""
        super().__init__(connection)
        self._ends = Ends(self)

    async def upload(
        self,
        source: Source,
        *,
        recipe: str | Mapping[str, Any] | None = None,
        filename: str | None = None,
        priority: int = 0,
        batch: str = "",
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Task:
        """Upload a photo (a path, bytes, or a function that opens a new stream for each try) and return its task.

        The task is durable when this returns. The upload is retried after transient failures with the same idempotency
        key, so it becomes one task however often the connection fails. Raises the errors of the photo and the recipe,
        OSError for a photo that cannot be read, and what the function or its stream raises.
        """
        one = Upload(source=source, filename=filename)
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        fields = form_fields(recipe, priority=priority, batch=batch, webhook=webhook)

        async def attempt() -> Task:
            async with multipart([one], fields) as body:
                return await self._connection.call(
                    "POST", "/task", Task, body=body, headers=headers, wait=EXTRA_WAIT, retry=False
                )

        return await retrying(attempt, retry_for=self._connection.retry_for)  # type: ignore[no-any-return]

    async def upload_many(
        self,
        uploads: Sequence[Upload],
        *,
        recipe: str | Mapping[str, Any] | None = None,
        priority: int = 0,
        batch: str = "",
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> list[Uploaded]:
        """Upload several photos in one request. Returns a task or a problem for each, in the same order."""
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        fields = form_fields(recipe, priority=priority, batch=batch, webhook=webhook)

        async def attempt() -> list[Uploaded]:
            async with multipart(uploads, fields) as body:
                return await self._connection.call(
                    "POST", "/tasks", list[Uploaded], body=body, headers=headers, wait=EXTRA_WAIT, retry=False
                )

        return await retrying(attempt, retry_for=self._connection.retry_for)  # type: ignore[no-any-return]

    async def task(self, id: str) -> Task:
        """Return a task. Raises NOT_FOUND."""
        return await self._connection.call("GET", _task(id), Task)

    async def tasks(
        self,
        *,
        states: Sequence[State] = (),
        recipe: str | None = None,
        batch: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> TaskPage:
        """Return tasks that match every filter given, newest first."""
        names = ",".join(state.name.lower() for state in states) or None
        query = TaskQuery(state=names, recipe=recipe, batch=batch, before=before, limit=limit)
        return await self._connection.call("GET", "/tasks", TaskPage, params=query.params())

    async def count(self, filter: TaskFilter) -> TaskCounts:
        """Count the tasks that match a filter."""
        return await self._connection.call("GET", "/tasks/counts", TaskCounts, params=filter.params())

    async def find(self, query: TaskQuery) -> TaskPage:
        """Return a page of the tasks that match every filter, newest first."""
        return await self._connection.call("GET", "/tasks", TaskPage, params=query.params())

    async def act(
        self,
        action: Literal["cancel", "retry", "release", "delete", "rerun"],
        *,
        tasks: Sequence[str] | None = None,
        filter: TaskFilter | None = None,
        recipe: str | Mapping[str, Any] | None = None,
        before: str | None = None,
        limit: int = 200,
        idempotency_key: str | None = None,
    ) -> TaskChanges:
        """Act on the tasks named, or on one page of those that match a filter; `next` leads to the next page.

        A rerun of named tasks may be repeated with the same `idempotency_key`: it creates no task twice.
        """
        named = None if tasks is None else list(tasks)
        body = {"action": action, "tasks": named, "filter": filter, "recipe": recipe, "before": before, "limit": limit}
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        path = "/tasks/actions"
        return await self._connection.call("POST", path, TaskChanges, json=body, headers=headers, retry=False)

    async def batches(self, *, before: str | None = None, limit: int = 100) -> BatchPage:
        """Return a page of batches, those with the newest tasks first."""
        return await self._connection.call("GET", "/batches", BatchPage, params={"before": before, "limit": limit})

    async def batch(self, name: str) -> Batch:
        """Return one batch. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/batches/{quote(name, safe='')}", Batch)

    async def wait(self, id: str, *, timeout: float | None = None) -> Task:
        """Wait until a task has ended; thousands may be waited for at once. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            return await self._ends.of(id)

    async def changes(
        self, after: int, *, wait: float = 0.0, limit: int = 1000, task: str | None = None, known: str = ""
    ) -> EventPage:
        """Return the changes after a number, of all tasks or of one, waiting up to `wait` seconds for the first.

        `known` is the `db` of the page before: the page then says whether an older copy of the database was restored.
        """
        params = {"after": after, "wait": wait, "limit": limit, "task": task, "known": known or None}
        return await self._connection.call(
            "GET", "/events", EventPage, params=params, headers={"Accept": "application/json"}, wait=wait
        )

    async def events(self, after: int) -> AsyncIterator[Event]:
        """Follow all changes after a number, forever; interrupted connections are resumed.

        After an older copy of the database was restored, it continues with later changes.
        """
        known = ""
        while True:
            try:
                page = await self.changes(after, wait=30.0, known=known)
            except Error as error:
                if not error.transient:
                    raise
                await asyncio.sleep(1.0)
                continue
            for event in page.events:
                yield event
            after, known = page.last, page.db

    @asynccontextmanager
    async def result(
        self, id: str, *, output: str | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the stream of an output, by default the first. Raises NOT_FOUND; CONFLICT before the end."""
        async with self._file(_task(id, "/result"), {"output": output}, headers or {}) as response:
            yield response

    @asynccontextmanager
    async def original(self, id: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open the stream of the original photo."""
        async with self._file(_task(id, "/original"), {}, {}) as response:
            yield response

    @asynccontextmanager
    async def _file(
        self, path: str, params: Mapping[str, str | None], headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a file, in the bucket if the master redirects there."""
        async with self._connection.open("GET", path, params=params, headers=headers, redirects=True) as response:
            if response.status != 307:
                yield response
                return
            url = response.headers.get("Location", "")
        async with self._connection.elsewhere(url, headers) as response:
            yield response

    async def save(self, id: str, path: Path, *, output: str | None = None, limit: int | None = None) -> int:
        """Save an output to a file atomically; return its size in bytes. Interrupted connections are resumed.

        Raises DAMAGED_BLOB if the server sends more than `limit` bytes.
        """
        tag: str | None = None
        async with replaced(path) as file:

            async def attempt() -> None:
                nonlocal tag
                size = file.tell()
                headers = {"Range": f"bytes={size}-", "If-Range": tag} if size and tag else {}
                async with self.result(id, output=output, headers=headers) as response:
                    tag = response.headers.get("ETag")
                    if response.status != 206 and size:
                        await asyncio.to_thread(emptied, file)
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        await asyncio.to_thread(file.write, chunk)
                        if limit is not None and file.tell() > limit:
                            detail = f"The server sent more than the {limit} bytes that this result has."
                            raise Error(Code.DAMAGED_BLOB, detail)

            while True:
                begun = file.tell()
                try:
                    await retrying(attempt, retry_for=self._connection.retry_for)
                    return file.tell()
                except Error as error:
                    # A connection that breaks again and again, but brings bytes, saves a large result in the end.
                    if not error.transient or file.tell() <= begun:
                        raise

    async def pause(self) -> Summary:
        """Pause the queue: workers begin no more tasks. Calling it again changes nothing."""
        return await self._connection.call("POST", "/queue/pause", Summary)

    async def resume(self) -> Summary:
        """Resume the queue."""
        return await self._connection.call("POST", "/queue/resume", Summary)

    async def confirm_clock(self) -> ClockConfirmed:
        """Confirm that the clocks are right after a jump, so that old data is deleted again. For administrators."""
        return await self._connection.call("POST", "/clock/confirm", ClockConfirmed)

    async def accept_storage(self, id: str) -> KnownStore:
        """Accept another store of blobs, because the photos of the old one are gone. For administrators."""
        return await self._connection.call("POST", "/storage/accept", KnownStore, json=KnownStore(id=id))

    async def pause_recipe(self, name: str) -> Summary:
        """Pause a recipe: workers begin no more of its tasks. Raises NOT_FOUND."""
        return await self._connection.call("POST", f"/recipes/{quote(name, safe='')}/pause", Summary)

    async def resume_recipe(self, name: str) -> Summary:
        """Resume a recipe."""
        return await self._connection.call("POST", f"/recipes/{quote(name, safe='')}/resume", Summary)

    async def drain(self, worker: str) -> WorkerSeen:
        """Drain a worker: it finishes the tasks that it holds and takes no more. Raises NOT_FOUND."""
        return await self._connection.call("POST", f"/workers/{quote(worker, safe='')}/drain", WorkerSeen)

    async def resume_worker(self, worker: str) -> WorkerSeen:
        """Let a drained worker take tasks again. Raises NOT_FOUND."""
        return await self._connection.call("POST", f"/workers/{quote(worker, safe='')}/resume", WorkerSeen)

    async def webhook_calls(
        self, *, outcome: str | None = None, before: str | None = None, limit: int = 100
    ) -> WebhookCallPage:
        """Return a page of the webhook calls that were made, newest first."""
        params = {"outcome": outcome, "before": before, "limit": limit}
        return await self._connection.call("GET", "/webhooks/calls", WebhookCallPage, params=params)

    async def resend(self, call: str) -> WebhookCall:
        """Make a webhook call again. Raises NOT_FOUND. Not retried, since the call may have been made."""
        path = f"/webhooks/calls/{quote(call, safe='')}/resend"
        return await self._connection.call("POST", path, WebhookCall, retry=False)

    async def cancel(self, id: str) -> Task:
        """Cancel a task that has not ended."""
        return await self._connection.call("POST", _task(id, "/cancel"), Task)

    async def retry(self, id: str) -> Task:
        """Let a failed, cancelled or quarantined task wait again."""
        return await queued_again(self._connection, _task(id, "/retry"), lambda: self.task(id))

    async def release(self, id: str) -> Task:
        """Let a quarantined task wait again."""
        return await queued_again(self._connection, _task(id, "/release"), lambda: self.task(id))

    async def delete(self, id: str) -> None:
        """Delete a task, its original and its results."""
        await deleted(self._connection, _task(id))

    async def recipes(self) -> list[NamedRecipe]:
        """Return every recipe: built in, from the master's file, and saved."""
        return await self._connection.call("GET", "/recipes", list[NamedRecipe])

    async def recipe(self, name: str) -> NamedRecipe:
        """Return one recipe. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/recipes/{quote(name, safe='')}", NamedRecipe)

    async def save_recipe(
        self, name: str, spec: Mapping[str, Any], *, unchanged_since: float | None = None
    ) -> NamedRecipe:
        """Save a recipe under a name. Raises INVALID_RECIPE with the place; CONFLICT for a built-in's name.

        With `unchanged_since`, the `changed` of the recipe that was read or 0 for a new one, raises PRECONDITION_FAILED
        if somebody has saved it since. Otherwise it replaces what they saved.
        """
        path, condition = f"/recipes/{quote(name, safe='')}", unchanged(unchanged_since)
        return await self._connection.call("PUT", path, NamedRecipe, json=spec, headers=condition)

    async def delete_recipe(self, name: str, *, unchanged_since: float | None = None) -> None:
        """Delete a saved recipe. Raises NOT_FOUND; PRECONDITION_FAILED as `save_recipe` does."""
        await deleted(self._connection, f"/recipes/{quote(name, safe='')}", headers=unchanged(unchanged_since))

    async def check_recipe(self, spec: Mapping[str, Any]) -> NamedRecipe:
        """Return a recipe in its canonical form. Raises INVALID_RECIPE with the place and the reason."""
        return await self._connection.call("POST", "/recipes/check", NamedRecipe, json=spec)

    async def summary(self) -> Summary:
        """Return the state of the queue and the workers."""
        return await self._connection.call("GET", "/summary", Summary)

    async def storage(self) -> StorageInfo:
        """Return how much is stored and how much still fits. Not retried, since the answer would be out of date.

        Raises FORBIDDEN outside the tenant `default`, UNAVAILABLE.
        """
        return await self._connection.call("GET", "/storage", StorageInfo, retry=False)

    async def lease(self, request: LeaseRequest) -> list[Lease]:
        """Lease waiting tasks (for workers)."""
        return await self._connection.call("POST", "/lease", list[Lease], json=request, wait=request.wait)

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        """Extend the leases of a worker (for workers)."""
        return await self._connection.call("POST", "/heartbeat", HeartbeatAnswer, json=beat)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[Settled]:
        """End attempts (for workers); safe to repeat."""
        return await self._connection.call("POST", "/outcomes", list[Settled], json=list(outcomes))


def output_filename(task: Task, output: str) -> str:
    """Return the name of a result's file, such as `photo.web-large.jpg`. It never has a directory.

    The extension is that of the media type, `bin` for an unknown one. Raises NOT_FOUND if there is no such output.
    """
    made = next((item for item in task.outputs if item.name == output), None)
    if made is None:
        raise Error(Code.NOT_FOUND, f"Task {task.id} has no output {output!r}.")
    extension = photos.EXTENSIONS.get(made.media_type, "bin")
    suffix = f".{filenames.saveable(output, 64) or 'output'}.{extension}"
    stem = Path(task.filename.replace("\\", "/")).stem
    room = filenames.MAX_BYTES - _ROOM - len(suffix.encode())
    return (filenames.saveable(stem, room) or filenames.saveable(task.id, 64) or "photo") + suffix
