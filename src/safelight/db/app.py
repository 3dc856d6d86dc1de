"""The routes of db that `client.db` calls; `db.classic` adds those of the classic protocol."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from safelight.access import route
from safelight.access.caller import Access
from safelight.db.classic import Classic, return_if_gone
from safelight.db.store import TaskStore
from safelight.errors import Code, Error
from safelight.http import json_response, query, read_body, read_json
from safelight.wire import (
    DEFAULT_TENANT,
    Heartbeat,
    KnownStore,
    LeaseRequest,
    NamedRecipe,
    NewTask,
    Outcome,
    Record,
    StoreClaim,
    TaskChange,
    TaskFilter,
    TaskQuery,
    TenantId,
    WebhookAnswer,
    decode,
)
from safelight.wire.conditions import Condition

MAX_BODY = 64 * 1024 * 1024
STORE: web.AppKey[TaskStore] = web.AppKey("store")

_Wait = Annotated[float, Meta(ge=0, le=60)]
_NewTasks = Annotated[list[NewTask], Meta(max_length=1000)]
_Outcomes = Annotated[list[Outcome], Meta(max_length=1000)]
_Held = dict[TenantId, Annotated[int, Meta(ge=0, le=1000)]]


class _OfAny(Record, frozen=True, kw_only=True):
    """The tenant that a call is limited to; without one, a service asks about all."""

    tenant: TenantId | None = None


class _OfOne(Record, frozen=True, kw_only=True):
    tenant: TenantId = DEFAULT_TENANT


class _Find(TaskQuery, frozen=True, kw_only=True):
    tenant: TenantId = DEFAULT_TENANT


class _Batches(_OfOne, frozen=True, kw_only=True):
    before: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    name: str | None = None


class _Count(TaskFilter, frozen=True, kw_only=True):
    tenant: TenantId = DEFAULT_TENANT


class _Follow(_OfAny, frozen=True, kw_only=True):
    after: Annotated[int, Meta(ge=0, le=2**62)] = 0
    limit: Annotated[int, Meta(ge=1, le=10000)] = 1000
    wait: _Wait = 0.0
    task: str | None = None
    known: str = ""


class _References(Record, frozen=True, kw_only=True):
    after: Annotated[int, Meta(ge=0, le=2**62)] = 0
    limit: Annotated[int, Meta(ge=1, le=10000)] = 10000


class _Statistics(_OfOne, frozen=True, kw_only=True):
    span: Annotated[int, Meta(ge=300, le=7 * 86400)]
    step: Annotated[int, Meta(ge=300, le=86400, multiple_of=300)] = 300


class _TakeDeliveries(Record, frozen=True, kw_only=True):
    n: Annotated[int, Meta(ge=1, le=1000)] = 100
    wait: _Wait = 0.0
    seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0


class _SettleDelivery(Record, frozen=True, kw_only=True):
    delivered: bool
    retry_after: Annotated[float, Meta(ge=0, le=30 * 86400)] | None = None
    answer: WebhookAnswer = WebhookAnswer()


class _Calls(_OfOne, frozen=True, kw_only=True):
    before: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    outcome: str | None = None


def make(store: TaskStore, classic_task: NewTask) -> web.Application:
    """Make the application; `classic_task` is the task that the classic protocol's `POST /task` creates."""
    app = web.Application(client_max_size=MAX_BODY)
    app[STORE] = store
    Classic(store, classic_task).add_to(app)
    _add_tasks(app)
    _add_work(app)
    _add_settings(app)
    return app


def _add_tasks(app: web.Application) -> None:
    route.add(
        app,
        route.post("/task/{id}/cancel", _cancel, Access.CLUSTER),
        route.post("/task/{id}/retry", _retry, Access.CLUSTER),
        route.post("/task/{id}/release", _release, Access.CLUSTER),
        route.get("/task/{id}/spec", _spec, Access.CLUSTER),
        route.delete("/task/{id}", _delete, Access.CLUSTER),
        route.post("/tasks", _create, Access.CLUSTER),
        route.post("/tasks/each", _create_each, Access.CLUSTER),
        route.post("/tasks/alike", _alike, Access.CLUSTER),
        route.post("/tasks/keyed", _keyed, Access.CLUSTER),
        route.get("/tasks", _find, Access.CLUSTER),
        route.get("/tasks/counts", _count, Access.CLUSTER),
        route.post("/tasks/changes", _change, Access.CLUSTER),
        route.get("/batches", _batches, Access.CLUSTER),
    )


def _add_work(app: web.Application) -> None:
    route.add(
        app,
        route.post("/lease", _lease, Access.CLUSTER),
        route.post("/heartbeat", _heartbeat, Access.CLUSTER),
        route.post("/workers/{id}/drain", _drain, Access.CLUSTER),
        route.post("/workers/{id}/resume", _resume, Access.CLUSTER),
        route.post("/outcomes", _settle, Access.CLUSTER),
        route.get("/events", _events, Access.CLUSTER),
        route.get("/summary", _summary, Access.CLUSTER),
        route.get("/statistics", _statistics, Access.CLUSTER),
        route.get("/references", _references, Access.CLUSTER),
        route.post("/deliveries", _take_deliveries, Access.CLUSTER),
        route.post("/deliveries/{id}", _settle_delivery, Access.CLUSTER),
        route.get("/webhook-calls", _webhook_calls, Access.CLUSTER),
        route.post("/webhook-calls/{id}/resend", _resend, Access.CLUSTER),
    )


def _add_settings(app: web.Application) -> None:
    route.add(
        app,
        route.get("/clock", _clock_confirmed, Access.CLUSTER),
        route.post("/clock/confirm", _confirm_clock, Access.CLUSTER),
        route.post("/store/claim", _claim_store, Access.CLUSTER),
        route.post("/store/accept", _accept_store, Access.CLUSTER),
        route.get("/recipes", _recipes, Access.CLUSTER),
        route.get("/recipes/{name}", _recipe, Access.CLUSTER),
        route.put("/recipes/{name}", _save_recipe, Access.CLUSTER),
        route.delete("/recipes/{name}", _delete_recipe, Access.CLUSTER),
    )


async def _create(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].create(await read_json(request, _NewTasks)))


async def _create_each(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].create_each(await read_json(request, _NewTasks)))


async def _alike(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].alike(await read_json(request, NewTask)))


async def _keyed(request: web.Request) -> web.Response:
    keys, tenant = await read_json(request, list[str]), query(request, _OfOne).tenant
    return json_response(await request.app[STORE].keyed(keys, tenant=tenant))


async def _find(request: web.Request) -> web.Response:
    wanted = query(request, _Find)
    return json_response(await request.app[STORE].find(wanted, tenant=wanted.tenant))


async def _count(request: web.Request) -> web.Response:
    wanted = query(request, _Count)
    return json_response(await request.app[STORE].count(wanted, tenant=wanted.tenant))


async def _change(request: web.Request) -> web.Response:
    change, tenant = await read_json(request, TaskChange), query(request, _OfOne).tenant
    return json_response(await request.app[STORE].change(change, tenant=tenant))


async def _spec(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].spec(request.match_info["id"], tenant=_tenant(request)))


async def _batches(request: web.Request) -> web.Response:
    wanted = query(request, _Batches)
    page = await request.app[STORE].batches(
        before=wanted.before, limit=wanted.limit, name=wanted.name, tenant=wanted.tenant
    )
    return json_response(page)


async def _lease(request: web.Request) -> web.Response:
    store = request.app[STORE]
    leases = await store.lease(await read_json(request, LeaseRequest))
    await return_if_gone(request, store, leases)
    return json_response(leases)


async def _heartbeat(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].heartbeat(await read_json(request, Heartbeat)))


async def _drain(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].drain(request.match_info["id"], draining=True))


async def _resume(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].drain(request.match_info["id"], draining=False))


async def _settle(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].settle(await read_json(request, _Outcomes)))


def _tenant(request: web.Request) -> str | None:
    return query(request, _OfAny).tenant


async def _cancel(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].cancel(request.match_info["id"], tenant=_tenant(request)))


async def _retry(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].retry(request.match_info["id"], tenant=_tenant(request)))


async def _release(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].release(request.match_info["id"], tenant=_tenant(request)))


async def _delete(request: web.Request) -> web.Response:
    await request.app[STORE].delete(request.match_info["id"], tenant=_tenant(request))
    return web.Response(status=204)


async def _events(request: web.Request) -> web.Response:
    wanted = query(request, _Follow)
    page = await request.app[STORE].events(
        wanted.after,
        limit=wanted.limit,
        wait=wanted.wait,
        task=wanted.task,
        tenant=wanted.tenant,
        known=wanted.known,
    )
    return json_response(page)


async def _summary(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].summary(tenant=_tenant(request)))


async def _clock_confirmed(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].clock_confirmed())


async def _confirm_clock(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].confirm_clock())


async def _claim_store(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].claim_store(await read_json(request, StoreClaim)))


async def _accept_store(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].accept_store(await read_json(request, KnownStore)))


async def _statistics(request: web.Request) -> web.Response:
    wanted = query(request, _Statistics)
    found = await request.app[STORE].statistics(span=wanted.span, step=wanted.step, tenant=wanted.tenant)
    return json_response(found)


async def _references(request: web.Request) -> web.Response:
    wanted = query(request, _References)
    return json_response(await request.app[STORE].referenced(wanted.after, limit=wanted.limit))


async def _recipes(request: web.Request) -> web.Response:
    return json_response(await request.app[STORE].recipes(tenant=query(request, _OfOne).tenant))


async def _recipe(request: web.Request) -> web.Response:
    tenant = query(request, _OfOne).tenant
    return json_response(await request.app[STORE].recipe(request.match_info["name"], tenant=tenant))


async def _save_recipe(request: web.Request) -> web.Response:
    recipe = await read_json(request, NamedRecipe)
    if recipe.name != request.match_info["name"]:
        raise Error(Code.INVALID_REQUEST, "The name in the body differs from the name in the URL.", position="$.name")
    return json_response(await request.app[STORE].save_recipe(recipe, Condition.of(request.headers)))


async def _delete_recipe(request: web.Request) -> web.Response:
    tenant, condition = query(request, _OfOne).tenant, Condition.of(request.headers)
    await request.app[STORE].delete_recipe(request.match_info["name"], tenant=tenant, condition=condition)
    return web.Response(status=204)


async def _take_deliveries(request: web.Request) -> web.Response:
    wanted = query(request, _TakeDeliveries)
    held = decode(await read_body(request) or b"{}", _Held)
    found = await request.app[STORE].deliveries(n=wanted.n, wait=wanted.wait, seconds=wanted.seconds, held=held)
    return json_response(found)


async def _webhook_calls(request: web.Request) -> web.Response:
    wanted = query(request, _Calls)
    page = await request.app[STORE].webhook_calls(
        before=wanted.before, limit=wanted.limit, outcome=wanted.outcome, tenant=wanted.tenant
    )
    return json_response(page)


async def _resend(request: web.Request) -> web.Response:
    tenant = query(request, _OfOne).tenant
    return json_response(await request.app[STORE].resend(request.match_info["id"], tenant=tenant))


async def _settle_delivery(request: web.Request) -> web.Response:
    body = await read_json(request, _SettleDelivery)
    await request.app[STORE].settle_delivery(
        request.match_info["id"], delivered=body.delivered, retry_after=body.retry_after, answer=body.answer
    )
    return web.Response(status=204)
