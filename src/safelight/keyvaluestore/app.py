"""The key-value store's routes."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta
from prometheus_client import CollectorRegistry, Gauge

from safelight import http
from safelight.access import route
from safelight.access.caller import Access
from safelight.errors import Code, Error
from safelight.http import form
from safelight.keyvaluestore.store import MAX_VALUE, KeyValueStore, shown
from safelight.wire import EntryPage

STORE: web.AppKey[KeyValueStore] = web.AppKey("store")
WATCHERS: web.AppKey[Gauge] = web.AppKey("watchers")
SETTING: web.AppKey[asyncio.Lock] = web.AppKey("setting")
"""Held while a program without a key sets a value, so that many at once do not pass the limit of entries."""

CLASSIC_ENTRIES = 100
"""How many entries there may be for a program without a key to add one. The classic protocol needs three.

Every service reads all entries at each change, and these never expire.
"""
CLASSIC_VALUE = 1024
"""Bytes of a value that a program without a key sets; the classic protocol's are a `host:port`."""

_OWN = frozenset({"healthz", "readyz", "metrics", "shutdown"})
_UNREACHABLE = frozenset({".", ".."})


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the classic protocol's POST."""

    value: str


class NewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a PUT. `ttl` is in seconds, None is forever."""

    value: str
    instance: str = ""
    ttl: float | None = None


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Wait up to `wait` seconds until the revision of the store differs from `after`."""

    after: int | None = None
    wait: Annotated[float, Meta(ge=0, le=60)] = 0.0


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a key, or all."""

    instance: str | None = None


def make(store: KeyValueStore, registry: CollectorRegistry) -> web.Application:
    """Make the application that serves a store."""
    app = web.Application(client_max_size=8 * MAX_VALUE)  # JSON may escape one character as six bytes
    app[STORE] = store
    app[SETTING] = asyncio.Lock()
    app[WATCHERS] = Gauge("safelight_keyvaluestore_watchers", "Waiting watches", registry=registry)
    route.add(
        app,
        route.get("/", listing, Access.CLUSTER),
        route.get("/{key}/instances", instances, Access.CLUSTER),
        *(
            [
                *route.get(path, get, Access.CLUSTER | Access.CLASSIC),
                *route.post(path, post, Access.CLUSTER | Access.CLASSIC),
                *route.put(path, put, Access.CLUSTER),
                *route.delete(path, delete, Access.CLUSTER),
            ]
            for path in ("/{key}", "/{key}/")
        ),
    )
    return app


async def listing(request: web.Request) -> web.Response:
    """Answer with every entry: as `key=value` lines, or as an `EntryPage` for those who accept JSON."""
    page = await _page(request, None)
    if "json" in request.headers.get("Accept", ""):
        return http.json_response(page)
    return web.Response(text="".join(f"{shown(entry)}\n" for entry in page.entries))


async def instances(request: web.Request) -> web.Response:
    """Answer with every live instance of a key."""
    return http.json_response(await _page(request, request.match_info["key"]))


@http.classic
async def get(request: web.Request) -> web.Response:
    """Answer with one value as text."""
    return web.Response(text=await request.app[STORE].get(request.match_info["key"]))


@http.classic
async def post(request: web.Request) -> web.Response:
    """Set a value as the classic protocol does, by JSON or by the form field `value`."""
    if request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        given = await form.fields(request, limit=8 * MAX_VALUE)
        if (value := given.get("value")) is None:
            raise Error(Code.INVALID_REQUEST, "Give the form field value.", position="value")
    else:
        value = (await http.read_json(request, Value)).value
    key = _new_key(request)
    if http.caller(request).via == "classic":
        async with request.app[SETTING]:
            await _check_classic(request.app[STORE], key, value)
            await request.app[STORE].set(key, value)
    else:
        await request.app[STORE].set(key, value)
    return web.Response()


async def _check_classic(store: KeyValueStore, key: str, value: str) -> None:
    """Keep a program without a key from replacing a service that has the cluster key, and from filling the store."""
    if len(value.encode(errors="replace")) > CLASSIC_VALUE:
        sentence = f"Without the cluster key, a value has at most {CLASSIC_VALUE} bytes. Send a shorter one."
        raise Error(Code.TOO_LARGE, sentence, position="value", limit=CLASSIC_VALUE)
    entries = (await store.entries()).entries
    instances = {entry.instance for entry in entries if entry.key == key}
    if any(instances):
        raise Error(Code.FORBIDDEN, f"{key} belongs to a service that registered with the cluster key.")
    if not instances and sum(not entry.instance for entry in entries) >= CLASSIC_ENTRIES:
        raise Error(
            Code.STORAGE_FULL,
            f"Programs without the cluster key may keep {CLASSIC_ENTRIES} entries, and there are so many: "
            "use the key of one of them, or have an operator delete some.",
        )


async def put(request: web.Request) -> web.Response:
    """Set the value of an instance or of the key, for a while or forever."""
    new = await http.read_json(request, NewEntry)
    entry = await request.app[STORE].set(_new_key(request), new.value, instance=new.instance, ttl=new.ttl)
    return http.json_response(entry)


async def delete(request: web.Request) -> web.Response:
    """Delete the entries of a key, or one instance; answer with their number."""
    which = http.query(request, Which)
    return http.json_response(await request.app[STORE].delete(request.match_info["key"], instance=which.instance))


async def _page(request: web.Request, key: str | None) -> EntryPage:
    store = request.app[STORE]
    watch = http.query(request, Watch)
    if watch.after is None:
        return await store.entries(key)
    with request.app[WATCHERS].track_inprogress():
        return await store.watch(watch.after, key=key, wait=watch.wait)


def _new_key(request: web.Request) -> str:
    key = request.match_info["key"]
    if key in _OWN or key in _UNREACHABLE:
        raise Error(
            Code.INVALID_REQUEST,
            f"{key} cannot be a key, because the service uses that path. Choose another one.",
        )
    return key
