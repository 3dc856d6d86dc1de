"""Statistics of the last hour by minute, counted from the changes of tasks and rebuilt from db at every start."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from safelight import background, http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.live.feed import Feed
from safelight.wire import State
from safelight.wire.statistics import Counts

log = logging.getLogger(__name__)

MINUTES = 60
_PAGE = 1000
_PAUSE_BEHIND = 0.02
"""Seconds between two full pages, so that reading many changes delays no requests."""
_PAUSE = 1.0
"""Seconds after a page that was not full. With a shorter pause, each master would ask db for a page after nearly every
change."""
_MOST = 1_000_000
"""The most changes to read at the start; if the hour had more, the statistics begin later."""


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of the minute that begins at `at` (Unix seconds). `median` and `p95` are processing times.

    `open` is the number of tasks that were waiting or being processed at its end.
    """

    at: int
    created: int = 0
    finished: int = 0
    failed: int = 0
    quarantined: int = 0
    deaths: int = 0
    open: int = 0
    median: float | None = None
    p95: float | None = None


class LastHour(msgspec.Struct, frozen=True, kw_only=True):
    """The minutes, the current one last. Nothing was counted before `since` (Unix seconds)."""

    since: float
    minutes: list[Minute]


def minute(at: int, counts: Counts, left: int) -> Minute:
    """Return the statistics of a time span, at whose end `left` tasks were open."""
    return Minute(
        at=at,
        created=counts.created,
        finished=counts.finished,
        failed=counts.failed,
        quarantined=counts.quarantined,
        deaths=counts.deaths,
        open=max(0, left),
        median=counts.percentile(0.5),
        p95=counts.percentile(0.95),
    )


class LastHourCounter:
    """Counts the changes of each minute of the last hour."""

    def __init__(self, feed: Feed, db: DbClient) -> None:
        self._feed = feed
        self._db = db
        self._counts: dict[str, dict[int, Counts]] = {}
        """By tenant and minute."""
        self._since = time.time()

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Count until the context ends."""
        async with background.running(self._count, "hour"):
            yield

    async def get(self, request: web.Request) -> web.Response:
        """`GET /last-hour`."""
        tenant = tenant_of(request)
        summary = await self._db.summary(tenant=tenant)
        waiting = (summary.tasks.get(State(state).name.lower(), 0) for state in (State.WAITING, State.WORKING))
        return http.json_response(self.summarise(tenant, sum(waiting)))

    def summarise(self, tenant: str, left: int) -> LastHour:
        """Return the last hour. `left` is the number of open tasks now, from which the earlier numbers are derived."""
        self._forget()
        now = int(time.time() // 60)
        counted = self._counts.get(tenant, {})
        minutes: list[Minute] = []
        for number in range(now, now - MINUTES, -1):
            counts = counted.get(number) or Counts()
            minutes.append(minute(number * 60, counts, left))
            left -= counts.change
        return LastHour(since=self._since, minutes=minutes[::-1])

    async def _count(self) -> None:
        after: int | None = None
        known = ""
        self._counts.clear()
        while True:
            try:
                if after is None:
                    after = await self._an_hour_ago()
                page, _ = await self._feed.read(after, limit=_PAGE, wait=30.0, known=known)
            except Error as error:
                log.debug("The statistics of the last hour are delayed: %s", error.detail)
                await asyncio.sleep(2.0)
                continue
            known = page.db
            if page.restored:
                self._counts.clear()
                after = None
                continue
            after = page.last
            for event in page.events:
                if not event.internal:
                    of_tenant = self._counts.setdefault(event.tenant, {})
                    of_tenant.setdefault(int(event.at // 60), Counts()).add(event)
            if any(len(counted) > 2 * MINUTES for counted in self._counts.values()):
                self._forget()
            await asyncio.sleep(_PAUSE if len(page.events) < _PAGE else _PAUSE_BEHIND)

    async def _an_hour_ago(self) -> int:
        """Find the number after which the changes of the last hour begin, by bisection."""
        wanted = time.time() - 60 * MINUTES
        last = (await self._db.summary()).seq
        low, high = max(0, last - _MOST), last
        while low < high:
            middle = (low + high) // 2
            page = await self._db.events(middle, limit=1)
            if page.events and page.events[0].at < wanted:
                low = page.events[0].seq
            else:
                high = middle
        first = (await self._db.events(low, limit=1)).events if last > _MOST and low == last - _MOST else []
        self._since = first[0].at if first else wanted
        return low

    def _forget(self) -> None:
        oldest = int(time.time() // 60) - MINUTES
        for tenant, counted in list(self._counts.items()):
            for number in [number for number in counted if number < oldest]:
                del counted[number]
            if not counted:
                del self._counts[tenant]

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/last-hour", handler=self.get, access=Access.READ, tag="tasks",
                summary="The last hour, minute by minute", answer={JSON: LastHour}, errors=(Code.UNAVAILABLE,),
            ),
        ]  # fmt: skip
