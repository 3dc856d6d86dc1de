"""The routes of db that classic programs call directly."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight.access import route
from safelight.access.caller import Access
from safelight.db.store import TaskStore
from safelight.errors import Code, Error
from safelight.http import caller, classic, json_response, query, read_body
from safelight.wire import (
    DEFAULT_TENANT,
    Lease,
    NewTask,
    Output,
    Record,
    Returned,
    Seconds,
    State,
    Task,
    TenantId,
    decode,
    encode,
)

_Outputs = Annotated[list[Output], Meta(max_length=100)]


class _Get(Record, frozen=True, kw_only=True):
    tenant: TenantId | None = None
    """The tenant that the call is limited to; without one, a service asks about all."""
    full: bool = False


class _Next(Record, frozen=True, kw_only=True):
    tenant: TenantId = DEFAULT_TENANT


class _Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The master's description of the result of a classic worker."""

    outputs: _Outputs = []
    engine: str = "classic"
    seconds: Seconds = 0.0


async def return_if_gone(request: web.Request, store: TaskStore, leases: list[Lease]) -> None:
    """Return leases if their worker has disconnected meanwhile, since the answer would reach nobody."""
    if leases and (request.transport is None or request.transport.is_closing()):
        await store.settle([Returned(lease=lease.id) for lease in leases])


_CLASSIC_NOT_FOUND = "Task not found"
"""What classic programs compare with."""


class Classic:
    """The handlers of the classic protocol; `POST /task` creates `new_task` for the caller's tenant."""

    def __init__(self, store: TaskStore, new_task: NewTask) -> None:
        self._store = store
        self._new_task = new_task

    def add_to(self, app: web.Application) -> None:
        """Add the routes, open to services and to programs of the classic protocol."""
        access = Access.CLUSTER | Access.CLASSIC
        route.add(
            app,
            route.post("/task", self._create, access),
            route.get("/task/next", self._next, access),
            route.get("/task/{id}", self._get, access),
            route.post("/task/{id}/ready", self._ready, access),
            route.post("/task/{id}/finish", self._finish, access),
        )

    @classic
    async def _create(self, request: web.Request) -> web.Response:
        new = self._new_task.evolve(tenant=_tenant(request) or DEFAULT_TENANT)
        (task,) = await self._store.create([new])
        return web.Response(text=task.id)

    @classic
    async def _next(self, request: web.Request) -> web.Response:
        """Answer with a lease and the classic state, or with 404 and the classic JSON if no task waits.

        HEAD takes no task, since its caller would not learn which.
        """
        tenant = _tenant(request) or query(request, _Next).tenant
        if request.method == "HEAD" and await self._store.classic_waits(tenant=tenant):
            return web.Response(content_type="application/json")
        lease = None if request.method == "HEAD" else await self._store.lease_classic(tenant=tenant)
        if lease is None:
            return json_response({"id": -1, "state": State.WAITING}, status=404)
        await return_if_gone(request, self._store, [lease])
        return json_response({**decode(encode(lease), dict), "state": State.WORKING})

    @classic
    async def _get(self, request: web.Request) -> web.Response:
        """Answer with a task. It has the id of the request, as classic clients expect, or with `full=true` its own."""
        wanted = query(request, _Get)
        try:
            task = await self._store.get(request.match_info["id"], tenant=_tenant(request) or wanted.tenant)
        except Error as error:
            if wanted.full or error.code is not Code.NOT_FOUND:
                raise
            raise Error(Code.NOT_FOUND, _CLASSIC_NOT_FOUND) from None
        return json_response(task if wanted.full else task.evolve(id=request.match_info["id"]))

    @classic
    async def _ready(self, request: web.Request) -> web.Response:
        await self._check(request)
        return _brief(request, await self._store.ready(request.match_info["id"]))

    @classic
    async def _finish(self, request: web.Request) -> web.Response:
        body = await _described(request)
        if body.outputs and _tenant(request) is not None:
            # Knowing a digest does not prove having the bytes: it could belong to another tenant's photo.
            sentence = (
                "Only services may name a result by its digest. Upload it to storage at /upload/{id}, then finish "
                "without."
            )
            raise Error(Code.FORBIDDEN, sentence)
        await self._check(request)
        task = await self._store.finish_classic(
            request.match_info["id"], body.outputs, engine=body.engine, seconds=body.seconds
        )
        return _brief(request, task)

    async def _check(self, request: web.Request) -> None:
        """Raise NOT_FOUND if a classic program names another tenant's task."""
        if (tenant := _tenant(request)) is not None:
            await self._store.get(request.match_info["id"], tenant=tenant)


async def _described(request: web.Request) -> _Finish:
    """Return the master's description of a result. Classic programs send none, with any media type."""
    data = await read_body(request)
    if request.content_type != "application/json" or not data:
        return _Finish()
    return decode(data, _Finish | None) or _Finish()  # type: ignore[arg-type]


def _tenant(request: web.Request) -> str | None:
    """Return the tenant of a classic program, or None for a service, which may name any."""
    asking = caller(request)
    return asking.tenant if asking.via == "classic" else None


def _brief(request: web.Request, task: Task) -> web.Response:
    return json_response(task) if query(request, _Get).full else web.Response()
