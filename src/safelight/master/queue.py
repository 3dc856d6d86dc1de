"""Pause and resume the queue of a tenant."""

from __future__ import annotations

from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.errors import Code
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import DEFAULT_TENANT, Summary


class Queue:
    """The handlers."""

    def __init__(self, db: DbClient, accounts: AccountClient) -> None:
        self._db = db
        self._accounts = accounts

    async def summary(self, request: web.Request) -> web.Response:
        """`GET /summary`: workers are told to the operator's tenant alone, for they work for all."""
        tenant = tenant_of(request)
        summary = await self._db.summary(tenant=tenant)
        return http.json_response(summary if tenant == DEFAULT_TENANT else summary.evolve(workers=[]))

    async def pause(self, request: web.Request) -> web.Response:
        """`POST /queue/pause`."""
        await self._accounts.pause(tenant_of(request), paused=True)
        return await self.summary(request)

    async def resume(self, request: web.Request) -> web.Response:
        """`POST /queue/resume`."""
        await self._accounts.pause(tenant_of(request), paused=False)
        return await self.summary(request)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        errors = (Code.NOT_FOUND, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/summary", handler=self.summary, access=Access.READ, tag="tasks",
                summary="Get the state of the queue", answer={JSON: Summary}, errors=(Code.UNAVAILABLE,),
            ),
            Endpoint(
                method="POST", path="/queue/pause", handler=self.pause, access=Access.OPERATE, tag="tasks",
                summary="Pause the queue",
                description=(
                    "No worker begins another task of the tenant, previews included, until the queue is resumed. What "
                    "is being processed goes on, and photos are still accepted."
                ),
                answer={JSON: Summary}, errors=errors,
            ),
            Endpoint(
                method="POST", path="/queue/resume", handler=self.resume, access=Access.OPERATE, tag="tasks",
                summary="Resume the queue", answer={JSON: Summary}, errors=errors,
            ),
        ]  # fmt: skip
