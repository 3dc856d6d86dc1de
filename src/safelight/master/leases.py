"""Forward the requests of workers to db, and its answers back, without reading them."""

from __future__ import annotations

import asyncio

from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.base import Connection
from safelight.errors import Code
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import Heartbeat, HeartbeatAnswer, Lease, LeaseRequest, Outcome, Settled

_LONGEST_WAIT = 60.0


class Leases:
    """The handlers for workers.

    A worker that leaves while it waits cancels its request here and thereby the one to db, which then returns the
    leases that it was about to grant. Nothing is sent twice: the worker itself repeats what was not answered.
    """

    def __init__(self, connection: Connection, stopping: asyncio.Event) -> None:
        self._connection = connection
        self._stopping = stopping

    async def lease(self, request: web.Request) -> web.Response:
        """`POST /lease`."""
        body = await http.read_body(request)
        forwarding = asyncio.ensure_future(self._forward("/lease", body, wait=_LONGEST_WAIT))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((forwarding, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not forwarding.done():
                return _json(b"[]")
            return _json(forwarding.result())
        finally:
            stopping.cancel()
            forwarding.cancel()
            await asyncio.gather(forwarding, stopping, return_exceptions=True)

    async def heartbeat(self, request: web.Request) -> web.Response:
        """`POST /heartbeat`."""
        return _json(await self._forward("/heartbeat", await http.read_body(request)))

    async def outcomes(self, request: web.Request) -> web.Response:
        """`POST /outcomes`."""
        return _json(await self._forward("/outcomes", await http.read_body(request)))

    async def _forward(self, path: str, body: bytes, *, wait: float = 0.0) -> bytes:
        headers = {"Content-Type": JSON}
        return await self._connection.call("POST", path, bytes, body=body, headers=headers, wait=wait, retry=False)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        errors = (Code.INVALID_REQUEST, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="POST", path="/lease", handler=self.lease, access=Access.CLUSTER,
                tag="workers", summary="Wait for tasks and take them",
                body={JSON: LeaseRequest}, answer={JSON: list[Lease]}, errors=errors,
            ),
            Endpoint(
                method="POST", path="/heartbeat", handler=self.heartbeat, access=Access.CLUSTER, tag="workers",
                summary="Say what is still being worked on", body={JSON: Heartbeat}, answer={JSON: HeartbeatAnswer},
                errors=errors,
            ),
            Endpoint(
                method="POST", path="/outcomes", handler=self.outcomes, access=Access.CLUSTER,
                tag="workers", summary="End attempts",
                body={JSON: list[Outcome]}, answer={JSON: list[Settled]}, errors=errors,
            ),
        ]  # fmt: skip


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=JSON)
