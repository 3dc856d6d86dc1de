"""The routes of partial uploads."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access import route
from safelight.access.caller import Access
from safelight.http.silence import in_time
from safelight.storage.partial.store import PartialStore
from safelight.wire import NewPartial

_CREATE_BYTES = 16 * 1024 * 1024
"""The largest body that opens an upload. Its recipe, of up to 4 MiB, is text in it, so some characters are escaped."""


class _Append(msgspec.Struct, frozen=True, kw_only=True):
    """The offset of an append, its checksum (`algorithm:hex`) if given, and its holder."""

    offset: Annotated[int, Meta(ge=0)]
    checksum: str | None = None
    holder: Annotated[str, Meta(pattern=r"^[0-9a-f]{0,64}(?!\n)$")] = ""


class _Outcome(msgspec.Struct, frozen=True, kw_only=True):
    outcome: Annotated[str, Meta(min_length=1, max_length=200)]


class Partials:
    """The handlers. A client that sends nothing for `idle_timeout` seconds is dropped; the bytes it sent are kept."""

    def __init__(self, store: PartialStore, idle_timeout: float) -> None:
        self._store = store
        self._idle_timeout = idle_timeout

    def routes(self) -> list[route.Route]:
        """Return the routes."""
        return [
            *route.post("/partials", self.create, Access.CLUSTER),
            *route.get("/partials/{id}", self.get, Access.CLUSTER),
            *route.patch("/partials/{id}", self.append, Access.CLUSTER),
            *route.post("/partials/{id}/finish", self.finish, Access.CLUSTER),
            *route.post("/partials/{id}/close", self.close, Access.CLUSTER),
            *route.delete("/partials/{id}", self.delete, Access.CLUSTER),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Open an upload."""
        new = await http.read_json(request, NewPartial, _CREATE_BYTES)
        return http.json_response(await self._store.create(new), status=201)

    async def get(self, request: web.Request) -> web.Response:
        """Answer with an upload and its offset."""
        return http.json_response(await self._store.get(request.match_info["id"]))

    async def append(self, request: web.Request) -> web.Response:
        """Append the body to an upload."""
        append = http.query(request, _Append)
        body = in_time(request.content.iter_any(), self._idle_timeout)
        return http.json_response(
            await self._store.append(
                request.match_info["id"], append.offset, body, checksum=append.checksum, holder=append.holder
            )
        )

    async def finish(self, request: web.Request) -> web.Response:
        """Store a complete upload as a blob."""
        return http.json_response(await self._store.finish(request.match_info["id"]))

    async def close(self, request: web.Request) -> web.Response:
        """Record the outcome of an upload."""
        given = await http.read_json(request, _Outcome)
        return http.json_response(await self._store.close(request.match_info["id"], given.outcome))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete an upload."""
        await self._store.delete(request.match_info["id"])
        return web.Response(status=204)
