"""The classic protocol's requests to the master. The id in each may be that of a task or of a lease.

`GET /task/next` answers with the id of a lease, so that classic workers use a fencing token without knowing it.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import BINARY, JSON, TEXT, Endpoint
from safelight.master.download.downloads import PARTLY, Downloads
from safelight.wire import State

ENGINE = "classic"
"""The engine of results from classic workers, which are never reused for other tasks."""


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `GET /task/next`."""

    id: str | int = -1
    state: int = 0


class Classic:
    """The handlers of the classic protocol, except for `POST /task`."""

    def __init__(self, db: DbClient, storage: StorageClient, downloads: Downloads) -> None:
        self._db = db
        self._storage = storage
        self._downloads = downloads

    @http.classic
    async def next(self, request: web.Request) -> web.Response:
        """`GET /task/next`. HEAD takes no task, since its caller would not learn which."""
        tenant = tenant_of(request)
        if request.method == "HEAD" and await self._db.classic_waits(tenant=tenant):
            return web.Response(content_type="application/json")
        lease = None if request.method == "HEAD" else await self._db.lease_classic(tenant=tenant)
        if lease is None:
            return http.json_response(Next(), status=404)
        return http.json_response(Next(id=lease.id, state=State.WORKING))

    @http.classic
    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET /task/{id}/download`: the original for the worker that holds the lease, otherwise the result."""
        given = request.match_info["id"]
        task = await self._db.get(given, tenant=tenant_of(request))
        if task.state is not State.FINISHED and given != task.id:
            return await self._downloads.send(request, await self._downloads.original_file(task))
        return await self._downloads.send(request, await self._downloads.result_file(task))

    @http.classic
    async def finish(self, request: web.Request) -> web.Response:
        """`POST /task/{id}/finish`: publish the result that the worker stored under its id."""
        given = request.match_info["id"]
        task = await self._db.get(given, tenant=tenant_of(request))
        if given == task.id and task.input is None:
            # Under this name storage has the original, which must not be published as the result.
            sentence = "Finish this task by the id that GET /task/next gave."
            raise Error(Code.LEASE_LOST, sentence)
        try:
            blob = await self._storage.named(given)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            sentence = "There is no result: upload it to storage as the part image at /upload/{id} first."
            raise Error(Code.CONFLICT, sentence) from None
        output = await self._downloads.named_output(blob)
        await self._db.finish_classic(given, [output], engine=ENGINE)
        return web.Response()

    @http.classic
    async def ready(self, request: web.Request) -> web.Response:
        """`GET /task/{id}/ready`."""
        task = await self._db.get(request.match_info["id"], tenant=tenant_of(request))
        return web.Response(text="true" if task.state is State.FINISHED else "false")

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        lost = (Code.NOT_FOUND, Code.LEASE_LOST, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/task/next", handler=self.next, access=Access.CLASSIC,
                tag="classic", summary="Take a task",
                description="404 and the id -1 if none waits. HEAD tells whether one waits, without taking it.",
                answer={JSON: Next}, also={404: {JSON: Next}},
                errors=(Code.NOT_FOUND, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="GET", path="/task/{id}/download", handler=self.download, access=Access.CLASSIC | Access.READ,
                tag="classic",
                summary="The photo to its worker; the result once finished", answer={"image/*": BINARY}, also=PARTLY,
                errors=(*lost, Code.CONFLICT, Code.OPERATION_FAILED, Code.RANGE_NOT_SATISFIABLE),
            ),
            Endpoint(
                method="POST", path="/task/{id}/finish", handler=self.finish, access=Access.CLASSIC, tag="classic",
                summary="Finish a task that was taken", errors=lost,
            ),
            Endpoint(
                method="GET", path="/task/{id}/ready", handler=self.ready, access=Access.CLASSIC | Access.READ,
                tag="classic", summary="Is it finished?",
                answer={TEXT: {"type": "string", "enum": ["true", "false"]}}, errors=(Code.NOT_FOUND, Code.UNAVAILABLE),
            ),
        ]  # fmt: skip
