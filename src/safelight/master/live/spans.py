"""Statistics of the last hour, day or week: charts, reasons of failures, the slowest photos."""

from __future__ import annotations

import asyncio
import time
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
from safelight.wire import Record
from safelight.wire.statistics import Counts

SPANS = {"hour": (3600, 300), "day": (86400, 900), "week": (7 * 86400, 7200)}
"""For each span, its length and that of one point of its charts, in seconds."""


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


class _Wanted(Record, frozen=True, kw_only=True):
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
        slowest = await asyncio.gather(*(self._slow(tenant, *each) for each in total.slowest))
        found = Statistics(
            step=step, points=points[::-1], reasons=total.reasons, slowest=[each for each in slowest if each]
        )
        return http.json_response(found)

    async def _slow(self, tenant: str, seconds: float, id: str) -> SlowTask | None:
        try:
            task = await self._db.get(id, tenant=tenant)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return None
        return SlowTask(task=id, filename=task.filename, recipe=task.recipe, seconds=seconds)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/statistics", handler=self.get, access=Access.READ, tag="tasks",
                summary="The last hour, day or week: charts, failures by reason, the slowest photos", query=_Wanted,
                answer={JSON: Statistics}, errors=(Code.UNAVAILABLE,),
            ),
        ]  # fmt: skip
