"""Batches: what was uploaded together."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import Batch, BatchPage


class BatchQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of batches."""

    before: Annotated[str, Meta(description="`next` of the page before", max_length=32)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Batches:
    """The handlers of batches."""

    def __init__(self, db: DbClient) -> None:
        self._db = db

    async def all(self, request: web.Request) -> web.Response:
        """`GET /batches`."""
        query = http.query(request, BatchQuery)
        return http.json_response(
            await self._db.batches(before=query.before, limit=query.limit, tenant=tenant_of(request))
        )

    async def get(self, request: web.Request) -> web.Response:
        """`GET /batches/{name}`."""
        page = await self._db.batches(name=request.match_info["name"], tenant=tenant_of(request))
        if not page.batches:
            raise Error(Code.NOT_FOUND, "There is no batch of this name, or its tasks were deleted.")
        return http.json_response(page.batches[0])

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/batches", handler=self.all, access=Access.READ, tag="tasks",
                summary="List batches, those with the newest tasks first", query=BatchQuery, answer={JSON: BatchPage},
                errors=(Code.INVALID_REQUEST, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="GET", path="/batches/{name}", handler=self.get, access=Access.READ, tag="tasks",
                summary="Get a batch", answer={JSON: Batch}, errors=(Code.NOT_FOUND, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
