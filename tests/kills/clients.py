"""Clients that upload and watch while programs are killed, and record the answers that they get."""

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from kills.history import Call, History
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import ENDED, State
from support.photos import is_inverse, photo


async def upload_until(
    stop: asyncio.Event,
    client: Client,
    history: History,
    numbers: "itertools.count[int]",
    *,
    webhook: str | None = None,
    pause: float = 0.0,
) -> None:
    """Upload one photo after another; repeat a failed call with the same key, as a client would.

    `pause` is the number of seconds between two of them.
    """
    while not stop.is_set():
        await asyncio.sleep(pause)
        await upload_once(client, history, next(numbers), webhook=webhook)


async def upload_repeatedly(
    stop: asyncio.Event, client: Client, history: History, numbers: "itertools.count[int]", *, webhook: str
) -> None:
    """Upload one photo after another, every second one twice at the same time with one key."""
    while not stop.is_set():
        number = next(numbers)
        keys = [secrets.token_hex(16)] * (1 + number % 2)
        await asyncio.gather(*(upload_once(client, history, number, webhook=webhook, key=key) for key in keys))


async def upload_once(
    client: Client, history: History, number: int, *, webhook: str | None = None, key: str | None = None
) -> None:
    """Upload a photo and record the answer."""
    call = Call(photo=number, key=key or secrets.token_hex(16))
    history.calls.append(call)
    try:
        task = await client.upload(photo(number), filename=f"{number}.png", idempotency_key=call.key, webhook=webhook)
    except Error:
        call.failed = True
        return
    call.answered, call.task, call.created = time.monotonic(), task.id, task.created
    history.saw(task, call.sent)


async def watch(client: Client, history: History) -> None:
    """Follow all events as long as the test lasts, over all restarts; get the task of each event."""
    after, known = 0, ""
    while True:
        try:
            page = await client.changes(after, wait=5.0, known=known)
            if page.restored:  # a power cut undid a lease whose event was read; start again, as documented
                history.events.clear()
                after, known = 0, ""
                continue
            history.events += page.events
            after, known = page.last, page.db
            for event in page.events[-3:]:
                asked = time.monotonic()
                history.saw(await client.task(event.task), asked)
        except Error:
            continue


async def seen_all(watcher: asyncio.Task[None], history: History, *, time_limit: float = 60.0) -> None:
    """Wait until the watcher has read all events of the settled tasks, then end it."""
    last = max(task.seq for task in history.final.values())
    async with asyncio.timeout(time_limit):
        while not history.events or history.events[-1].seq < last:
            await asyncio.wait([watcher], timeout=0.05)
            assert not watcher.done()
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)


async def settled(client: Client, history: History, *, time_limit: float = 90.0) -> None:
    """Wait until every acknowledged task has ended; release tasks that the kills have quarantined, as a person would.

    `time_limit` is in seconds, for each task.
    """
    for call in history.acknowledged:
        assert call.task is not None
        try:
            async with asyncio.timeout(time_limit):
                task = await client.wait(call.task)
                while task.state is State.QUARANTINED:
                    assert task.failure is not None
                    await client.release(task.id)
                    task = await client.wait(task.id)
            assert task.state in ENDED
            history.final[task.id] = task
            history.saw(task)
            if task.state is State.FINISHED:
                async with client.result(task.id) as response:
                    history.results[task.id] = await response.read()
        except Error as error:
            if error.code not in (Code.NOT_FOUND, Code.DAMAGED_BLOB):
                raise
            # The task or its result is missing, which the history will show.


class Uploads:
    """Run uploads while programs are killed, and a reader of all events."""

    def __init__(self, client: Client, history: History, *, clients: int, first: int) -> None:
        self._client = client
        self._history = history
        self._stop = asyncio.Event()
        numbers = itertools.count(first)
        self._tasks = [asyncio.create_task(upload_until(self._stop, client, history, numbers)) for _ in range(clients)]
        self._watcher = asyncio.create_task(watch(client, history))

    @classmethod
    @asynccontextmanager
    async def running(cls, client: Client, history: History, *, clients: int, first: int = 0) -> AsyncIterator[Self]:
        """Let `clients` clients upload photos, numbered from `first`, as long as the context lasts."""
        uploads = cls(client, history, clients=clients, first=first)
        try:
            yield uploads
        finally:
            for task in (*uploads._tasks, uploads._watcher):
                task.cancel()
            await asyncio.gather(*uploads._tasks, uploads._watcher, return_exceptions=True)

    async def more(self, count: int, *, since: float = 0.0, time_limit: float = 90.0) -> None:
        """Wait until `count` more uploads that were sent after the time `since` are acknowledged."""
        enough = self._acknowledged(since) + count
        async with asyncio.timeout(time_limit):
            while self._acknowledged(since) < enough:
                await asyncio.wait(self._tasks, timeout=0.02)
                assert not any(task.done() for task in self._tasks)

    def _acknowledged(self, since: float) -> int:
        return sum(call.sent >= since for call in self._history.acknowledged)

    async def end(self) -> None:
        """Send no more uploads, and wait for the current ones."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def judge(self, *, time_limit: float = 90.0) -> None:
        """Wait until all tasks have ended and all events were seen; then assert that the history breaks no rule."""
        await settled(self._client, self._history, time_limit=time_limit)
        await seen_all(self._watcher, self._history, time_limit=time_limit)
        wrong = self._history.violations()
        assert not wrong, wrong
        for call in self._history.acknowledged:
            right = is_inverse(photo(call.photo), self._history.results[call.task or ""])
            assert right, f"photo {call.photo} came out wrong"
