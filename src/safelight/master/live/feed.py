"""The changes of all tasks as they happen. One task follows db for all readers of this master."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from safelight import background
from safelight.client.db import DbClient
from safelight.errors import Error
from safelight.wire import DEFAULT_TENANT, Event, EventPage, encode

log = logging.getLogger(__name__)

_KEPT = 8192
"""Changes that are kept in memory; older ones are read from db."""
_WAIT = 30.0
_PAGE = 1000
_PAUSE_WITH_READERS = 0.002
_PAUSE_WITHOUT_READERS = 1.0
"""Seconds between two requests to db, with and without waiting readers; each fetches all changes since the last.

A new reader ends the pause, and a full page is followed by the next one as with a waiting reader.
"""
_BURST = 10
_PAGES_PER_SECOND = 40
"""Pages to read without a pause, and pages per second in the long run, which then have more events each."""


class Feed:
    """Changes by number. A reader is only the number of its last change; the feed keeps no other state for it."""

    def __init__(self, db: DbClient) -> None:
        self._db = db
        self._events: list[Event] = []
        self._frames: list[bytes] = []
        self._numbers: list[int] = []
        self._floor: int | None = None
        self._last = 0
        self._oldest = 0
        self._db_known = ""
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}
        """Waiting readers by what they wait for; they are woken in order of arrival."""
        self._wanted = asyncio.Event()
        self._stopped = False
        self._credit = float(_BURST)
        self._credited = 0.0

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow db until the context ends."""
        try:
            async with background.running(self._follow, "feed"):
                yield
        finally:
            self.stop()

    def stop(self) -> None:
        """End every wait now, and let no reader wait again."""
        self._stopped = True
        self._wake(set(self._waiting))

    @property
    def db(self) -> str:
        """The database of the latest page, as pages name it; empty before the first page."""
        return self._db_known

    async def now(self) -> int:
        """Return the number of the latest change, as db knows it. Raises UNAVAILABLE."""
        return (await self._db.summary()).seq

    async def read(
        self,
        after: int,
        *,
        limit: int = _PAGE,
        wait: float = 0.0,
        task: str | None = None,
        tenant: str | None = None,
        since: int = 0,
        known: str = "",
    ) -> tuple[EventPage, list[bytes]]:
        """Return the changes after a number, and their frames for event streams, waiting for the first one.

        Those up to the number `since` are not the tenant's; db leaves them out itself. `known` is the `db` of the page
        before; a page that is `restored` is returned at once.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            key = task or _of(tenant)
            changed = self._await_change(key)
            try:
                # Memory may lack changes that were acknowledged already; who waits receives them next.
                in_memory = wait > 0 and known in ("", self._db_known)
                found = self._kept(max(after, since), limit, task, tenant) if in_memory else None
                if found is None:
                    page = _told(await self._db.events(after, limit=limit, task=task, tenant=tenant, known=known))
                    found = page, [frame(event, page.db) for event in page.events]
                left = deadline - loop.time()
                if found[0].events or found[0].restored or self._stopped or left <= 0:
                    return found
                after, known = max(after, found[0].last), found[0].db
                if after < self._last:  # db examined only a part of the changes of other tasks
                    continue
                await asyncio.wait((changed,), timeout=left)
            finally:
                self._forget(key, changed)

    def _await_change(self, key: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, {})[future] = None
        self._wanted.set()
        return future

    def _forget(self, key: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.pop(future, None)
            if not waiting:
                del self._waiting[key]

    def _wake(self, keys: set[str]) -> None:
        for key in sorted(keys & self._waiting.keys()):
            for future in self._waiting.pop(key):
                if not future.done():
                    future.set_result(None)

    def _kept(
        self, after: int, limit: int, task: str | None, tenant: str | None
    ) -> tuple[EventPage, list[bytes]] | None:
        """Read from memory. Return None if the changes after that number are not all in memory."""
        if self._floor is None or after < self._floor or after > self._last:
            return None
        events: list[Event] = []
        frames: list[bytes] = []
        for at in range(bisect_right(self._numbers, after), len(self._numbers)):
            event = self._events[at]
            if task in (None, event.task) and tenant in (None, event.tenant):
                events.append(event)
                frames.append(self._frames[at])
                if len(events) == limit:
                    break
        last = events[-1].seq if len(events) == limit else self._last
        return EventPage(events=events, last=last, oldest=self._oldest, db=self._db_known), frames

    async def _follow(self) -> None:
        pause = 0.1
        while True:
            try:
                if self._floor is None:
                    self._last = self._floor = (await self._db.summary()).seq
                    self._wake(set(self._waiting))  # earlier changes are read from db
                page = _told(await self._db.events(self._last, limit=_PAGE, wait=_WAIT, known=self._db_known))
            except Error as error:
                log.debug("The feed of changes pauses: %s", error.detail)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            pause = 0.1
            self._take(page)
            await self._rest(behind=len(page.events) >= _PAGE)

    async def _rest(self, *, behind: bool) -> None:
        now = asyncio.get_running_loop().time()
        self._credit = min(_BURST, self._credit + (now - self._credited) * _PAGES_PER_SECOND) - 1
        self._credited = now
        if self._waiting or behind:
            await asyncio.sleep(_PAUSE_WITH_READERS if self._credit > 0 else 1 / _PAGES_PER_SECOND)
            return
        self._wanted.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_WITHOUT_READERS):
                await self._wanted.wait()

    def _take(self, page: EventPage) -> None:
        self._db_known = page.db
        if page.restored or page.last < self._last or page.oldest > self._last:
            # db was restored, or has deleted unread changes: memory would have a gap, so it is dropped.
            log.warning("The feed of changes restarts at %d; it was at %d", page.last, self._last)
            self._events, self._frames, self._numbers = [], [], []
            self._floor = page.events[0].seq - 1 if page.events else page.last
            self._wake(set(self._waiting))
        self._last, self._oldest = page.last, page.oldest
        self._events += page.events
        self._frames += [frame(event, page.db) for event in page.events]
        self._numbers += [event.seq for event in page.events]
        if len(self._numbers) > 2 * _KEPT:
            dropped = len(self._numbers) - _KEPT
            self._floor = self._numbers[dropped - 1]
            del self._events[:dropped], self._frames[:dropped], self._numbers[:dropped]
        if page.events:
            self._wake({"", *(event.task for event in page.events), *(_of(event.tenant) for event in page.events)})


def _of(tenant: str | None) -> str:
    """Return the key under which readers of a tenant's changes wait; no task's id looks like it."""
    return "" if tenant is None else f"tenant:{tenant}"


def _told(page: EventPage) -> EventPage:
    """Leave the names of machines out of the changes of tenants other than `default`, who see no workers.

    Of a worker's id they are told its random end, which tells workers apart and by which an operator finds the worker.
    """
    if all(event.tenant == DEFAULT_TENANT for event in page.events):
        return page
    events = [
        event if event.tenant == DEFAULT_TENANT else event.evolve(worker=event.worker.rpartition("-")[2])
        for event in page.events
    ]
    return page.evolve(events=events)  # type: ignore[no-any-return]


def frame(event: Event, db: str) -> bytes:
    """Return a change as a server-sent event of a database."""
    return b"id: %b\ndata: %b\n\n" % (stream_id(event.seq, db), encode(event))


def stream_id(seq: int, db: str) -> bytes:
    """Return the id of a change in a stream: its number and, where it is known, the `db` that gave it."""
    return f"{seq}-{db}".encode() if db else b"%d" % seq
