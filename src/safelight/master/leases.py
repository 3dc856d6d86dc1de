"""Pass the requests of workers on to db."""

from __future__ import annotations

import asyncio
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import Heartbeat, HeartbeatAnswer, Lease, LeaseRequest, Outcome, Returned, Settled

_Outcomes = Annotated[list[Outcome], Meta(max_length=1000)]


class Leases:
    """The handlers for workers.

    A worker that disconnects while it waits cancels its request here and thereby the one to db, which then takes back
    the leases that it was about to grant. Nothing is sent twice: the worker itself repeats requests that were not
    answered.
    """

    def __init__(self, db: DbClient, stopping: asyncio.Event) -> None:
        """`db` is a client that does not repeat requests."""
        self._db = db
        self._stopping = stopping

    async def lease(self, request: web.Request) -> web.Response:
        """`POST /lease`."""
        asked = await http.read_json(request, LeaseRequest)
        leasing = asyncio.ensure_future(self._db.lease(asked))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((leasing, stopping), return_when=asyncio.FIRST_COMPLETED)
            leases = leasing.result() if leasing.done() else []
        finally:
            stopping.cancel()
            leasing.cancel()
            await asyncio.gather(leasing, stopping, return_exceptions=True)
        if leases and (request.transport is None or request.transport.is_closing()):
            # The worker has disconnected meanwhile, so the answer would reach nobody.
            await self._db.settle([Returned(lease=lease.id) for lease in leases])
        return http.json_response(leases)

    async def heartbeat(self, request: web.Request) -> web.Response:
        """`POST /heartbeat`."""
        return http.json_response(await self._db.heartbeat(await http.read_json(request, Heartbeat)))

    async def outcomes(self, request: web.Request) -> web.Response:
        """`POST /outcomes`."""
        return http.json_response(await self._db.settle(await http.read_json(request, _Outcomes)))

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
                summary="Extend leases by a heartbeat", body={JSON: Heartbeat}, answer={JSON: HeartbeatAnswer},
                errors=errors,
            ),
            Endpoint(
                method="POST", path="/outcomes", handler=self.outcomes, access=Access.CLUSTER,
                tag="workers", summary="End attempts",
                body={JSON: list[Outcome]}, answer={JSON: list[Settled]}, errors=errors,
            ),
        ]  # fmt: skip
