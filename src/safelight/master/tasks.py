"""Endpoints that list, get, cancel, retry, release and delete tasks."""

from __future__ import annotations

from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.api.public_schema import PublicPage, PublicTask, public, public_page
from safelight.wire import NamedRecipe, TaskQuery


class Tasks:
    """The handlers of tasks."""

    def __init__(self, db: DbClient) -> None:
        self._db = db

    async def find(self, request: web.Request) -> web.Response:
        """`GET /tasks`."""
        page = await self._db.find(http.query(request, TaskQuery), tenant=tenant_of(request))
        return http.json_response(public_page(page))

    async def get(self, request: web.Request) -> web.Response:
        """`GET /task/{id}`."""
        return http.json_response(public(await self._db.get(request.match_info["id"], tenant=tenant_of(request))))

    async def recipe(self, request: web.Request) -> web.Response:
        """`GET /task/{id}/recipe`."""
        return http.json_response(await self._db.spec(request.match_info["id"], tenant=tenant_of(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """`POST /task/{id}/cancel`."""
        return http.json_response(public(await self._db.cancel(request.match_info["id"], tenant=tenant_of(request))))

    async def retry(self, request: web.Request) -> web.Response:
        """`POST /task/{id}/retry`."""
        return http.json_response(public(await self._db.retry(request.match_info["id"], tenant=tenant_of(request))))

    async def release(self, request: web.Request) -> web.Response:
        """`POST /task/{id}/release`."""
        return http.json_response(public(await self._db.release(request.match_info["id"], tenant=tenant_of(request))))

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /task/{id}`: the next garbage collection removes its blobs, unless other tasks refer to them."""
        await self._db.delete(request.match_info["id"], tenant=tenant_of(request))
        return web.Response(status=204)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        found = {JSON: PublicTask}
        gone, settled = (Code.NOT_FOUND, Code.UNAVAILABLE), (Code.NOT_FOUND, Code.CONFLICT, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/tasks", handler=self.find, access=Access.READ,
                tag="tasks", summary="List tasks, newest first",
                query=TaskQuery, answer={JSON: PublicPage}, errors=(Code.INVALID_REQUEST, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="GET", path="/task/{id}", handler=self.get, access=Access.READ, tag="tasks",
                summary="Get a task", answer=found, errors=gone,
            ),
            Endpoint(
                method="GET", path="/task/{id}/recipe", handler=self.recipe, access=Access.READ, tag="tasks",
                summary="Get the recipe of a task", answer={JSON: NamedRecipe}, errors=gone,
            ),
            Endpoint(
                method="POST", path="/task/{id}/cancel", handler=self.cancel, access=Access.OPERATE, tag="tasks",
                summary="Cancel a task that has not ended", answer=found, errors=settled,
            ),
            Endpoint(
                method="POST", path="/task/{id}/retry", handler=self.retry, access=Access.OPERATE, tag="tasks",
                summary="Retry a failed, cancelled or quarantined task", answer=found, errors=settled,
            ),
            Endpoint(
                method="POST", path="/task/{id}/release", handler=self.release, access=Access.OPERATE, tag="tasks",
                summary="Release a quarantined task", answer=found, errors=settled,
            ),
            Endpoint(
                method="DELETE", path="/task/{id}", handler=self.delete, access=Access.OPERATE, tag="tasks",
                summary="Delete a task, its original and its results", status=204, errors=gone,
            ),
        ]  # fmt: skip
