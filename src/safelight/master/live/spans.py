"""Statistics of the last hour, day or week: charts, reasons of failures, the slowest photos."""

from __future__ import annotations

import asyncio
import time
from heapq import nlargest
from typing import Literal

import msgspec
from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.live.last_hour import Minute, minute
from safelight.wire.statistics import MOST_SLOWEST, Counts, StatisticsSlot

SPANS = {"hour": (3600, 300), "day": (86400, 900), "week": (7 * 86400, 7200)}
"""For each span, its length and that of one point of its charts, in seconds."""
_MOST_READ = 10 * MOST_SLOWEST
"""The most tasks to look up for the slowest photos: those that were deleted since give their place to the next."""


class SlowTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose processing took long."""

    task: str
    filename: str
    recipe: str
    seconds: float


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """The points, each of `step` seconds, the current one last.

    `reasons` counts failures, and `slowest` has the slowest photos whose tasks still exist.
    """

    step: int
    points: list[Minute]
    reasons: dict[str, int]
    slowest: list[SlowTask]


class _Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    span: Literal["hour", "day", "week"] = "day"


class StatisticsOfSpans:
    """The handler."""

    def __init__(self, db: DbClient) -> None:
        self._db = db

    async def get(self, request: web.Request) -> web.Response:
        """`GET /statistics`."""
        tenant = tenant_of(request)
        span, step = SPANS[http.query(request, _Wanted).span]
        summary, slots = await asyncio.gather(
            self._db.summary(tenant=tenant), self._db.statistics(span=span, step=step, tenant=tenant)
        )
        happened = {slot.at: slot.counts for slot in slots}
        last = max(int(time.time()) // step * step, *happened, 0)
        left = summary.tasks.get("waiting", 0) + summary.tasks.get("working", 0)
        points: list[Minute] = []
        total = Counts()
        for at in range(last, last - span, -step):
            counts = happened.get(at) or Counts()
            points.append(minute(at, counts, left))
            left -= counts.change
            total.merge(counts)
        slowest = await slowest_tasks(self._db, tenant, slots)
        return http.json_response(Statistics(step=step, points=points[::-1], reasons=total.reasons, slowest=slowest))

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/statistics", handler=self.get, access=Access.READ, tag="tasks",
                summary="The last hour, day or week: charts, failures by reason, the slowest photos", query=_Wanted,
                answer={JSON: Statistics}, errors=(Code.UNAVAILABLE,),
            ),
        ]  # fmt: skip


async def slowest_tasks(db: DbClient, tenant: str, slots: list[StatisticsSlot]) -> list[SlowTask]:
    """Return the slowest of the tasks that still exist, longest first, `MOST_SLOWEST` at most."""
    left = nlargest(_MOST_READ, (each for slot in slots for each in slot.counts.slowest))
    found: list[SlowTask] = []
    while left and len(found) < MOST_SLOWEST:
        tasks = await asyncio.gather(*(_slow(db, tenant, *each) for each in left[:MOST_SLOWEST]))
        found += [task for task in tasks if task]
        del left[:MOST_SLOWEST]
    return found[:MOST_SLOWEST]


async def _slow(db: DbClient, tenant: str, seconds: float, id: str) -> SlowTask | None:
    try:
        task = await db.get(id, tenant=tenant)
    except Error as error:
        if error.code is not Code.NOT_FOUND:
            raise
        return None
    return SlowTask(task=id, filename=task.filename, recipe=task.recipe, seconds=seconds)
