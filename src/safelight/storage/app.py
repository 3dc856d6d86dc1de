"""Storage's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TypeVar

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from safelight import http
from safelight.access import malformed, route
from safelight.access.caller import Access
from safelight.errors import Code, Error
from safelight.http.form import Form
from safelight.storage import classic, download
from safelight.storage.backends import MakeLink
from safelight.storage.directory.handover import Handover
from safelight.storage.maintenance.collector import Collector
from safelight.storage.store import BlobStore, PutResult
from safelight.wire import BlobLink, Collected, Digest, NewBlobLink, NewFile

T = TypeVar("T")

_CHUNK = 1 << 18


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of an upload: bytes of a blob, and seconds that its sender may send nothing."""

    blob: int
    idle_timeout: float


class Numbers:
    """The metrics of storage."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"safelight_storage_{name}", text, registry=registry)

        self.received = counter("received_bytes", "Bytes of blobs received")
        self.sent = counter("sent_bytes", "Bytes of blobs sent")
        self.stored = counter("blobs_stored", "Blobs stored that were new")
        self.deduplicated = counter("blobs_deduplicated", "Blobs received that were stored before")
        self.collected = counter("blobs_collected", "Blobs and names removed by garbage collections")
        self.failed = counter("collections_failed", "Garbage collections that failed")
        self.freed = counter("collected_bytes", "Bytes freed by garbage collections")
        self.scrubbed = counter("scrubbed_bytes", "Bytes of blobs read in search of damage")
        self.damaged = counter("verification_failures", "Blobs found damaged")

    def count_put(self, stored: PutResult) -> None:
        """Count a blob that was received."""
        self.received.inc(stored.size)
        (self.stored if stored.new else self.deduplicated).inc()

    def count_scrubbed(self, size: int, *, damaged: bool) -> None:
        """Count a blob that was searched for damage."""
        self.scrubbed.inc(size)
        self.damaged.inc(damaged)

    def count_collection(self, collected: Collected) -> None:
        """Count what a collection removed."""
        self.collected.inc(collected.removed)
        self.freed.inc(collected.freed)


STORE: web.AppKey[BlobStore] = web.AppKey("store")
COLLECTOR: web.AppKey[Collector | None] = web.AppKey("collector")
TASKS: web.AppKey[classic.Tasks | None] = web.AppKey("tasks")
LIMITS: web.AppKey[Limits] = web.AppKey("limits")
NUMBERS: web.AppKey[Numbers] = web.AppKey("numbers")
HANDOVER: web.AppKey[Handover | None] = web.AppKey("handover")

LINK: web.AppKey[MakeLink | None] = web.AppKey("link")

MAX_NAME = 200
"""Characters of a classic name."""


class NewName(msgspec.Struct, frozen=True, kw_only=True):
    """The blob that a name should refer to."""

    digest: Digest


class ReadQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How to read a blob. With `verify`, its digest is checked before the first byte is sent."""

    verify: bool = False


def make(
    store: BlobStore,
    collector: Collector | None,
    limits: Limits,
    numbers: Numbers,
    tasks: classic.Tasks | None = None,
    handover: Handover | None = None,
    link: MakeLink | None = None,
) -> web.Application:
    """Make the application that serves a store. Without a collector, it refuses to collect.

    Without `tasks`, the classic protocol finds blobs only by the name under which they were stored. `handover` is the
    directory that a directory store shares with other programs; `link` makes links to the blobs of a bucket.
    """
    app = web.Application()
    app[TASKS] = tasks
    app[STORE], app[COLLECTOR], app[LIMITS], app[NUMBERS] = store, collector, limits, numbers
    app[HANDOVER], app[LINK] = handover, link
    route.add(
        app,
        route.post("/blobs", put, Access.CLUSTER),
        route.put("/blobs/{digest}", put, Access.CLUSTER),
        route.get("/blobs/{digest}", get, Access.CLUSTER),
        route.post("/blobs/{digest}/link", make_link, Access.CLUSTER),
        route.get("/names/{name}", named, Access.CLUSTER),
        route.put("/names/{name}", name, Access.CLUSTER),
        route.get("/info", info, Access.CLUSTER),
        route.get("/shared", shared, Access.CLUSTER),
        route.post("/shared", adopt, Access.CLUSTER),
        route.post("/collect", collect, Access.CLUSTER),
        route.post("/upload/{name}", upload, Access.CLUSTER | Access.CLASSIC),
        route.get("/download/{name}", classic_download, Access.CLUSTER | Access.CLASSIC),
    )
    return app


async def put(request: web.Request) -> web.Response:
    """Store the body as a blob. If the URL has a digest, the body must match it."""
    stored = await _store(request, _body(request), request.match_info.get("digest"))
    return http.json_response(stored, status=201 if stored.new else 200, headers={"ETag": f'"{stored.digest}"'})


async def get(request: web.Request) -> web.StreamResponse:
    """Send a blob or a range of it."""
    options = http.query(request, ReadQuery)
    return await _send(request, request.match_info["digest"], verify=options.verify, immutable=True)


async def make_link(request: web.Request) -> web.Response:
    """Answer with a temporary link to a blob in the bucket, for a client."""
    new, link = await http.read_json(request, NewBlobLink), request.app[LINK]
    return http.json_response(BlobLink(url="") if link is None else link(request.match_info["digest"], new))


async def named(request: web.Request) -> web.Response:
    """Answer with the blob to which a classic name refers."""
    return http.json_response(await request.app[STORE].named(request.match_info["name"]))


async def name(request: web.Request) -> web.Response:
    """Give a blob a classic name."""
    new = await http.read_json(request, NewName)
    await request.app[STORE].name(_name(request), new.digest)
    return web.Response(status=204)


async def shared(request: web.Request) -> web.Response:
    """Answer with the directory that is shared with other programs, or null."""
    handover = request.app[HANDOVER]
    return http.json_response(None if handover is None else await handover.shared())


async def adopt(request: web.Request) -> web.Response:
    """Store a file that another program has put into the shared directory."""
    handover, new = request.app[HANDOVER], await http.read_json(request, NewFile)
    if handover is None:
        raise Error(Code.NOT_FOUND, "This storage shares no files.")
    stored = await handover.adopt(new.name, new.token, limit=request.app[LIMITS].blob)
    request.app[NUMBERS].count_put(stored)
    return http.json_response(stored, status=201 if stored.new else 200)


async def info(request: web.Request) -> web.Response:
    """Answer with how much is stored and how much still fits."""
    return http.json_response(await request.app[STORE].info())


async def collect(request: web.Request) -> web.Response:
    """Collect garbage now."""
    collector = request.app[COLLECTOR]
    if collector is None:
        raise Error(
            Code.UNAVAILABLE,
            "Storage runs without a key-value store, so it cannot ask db which blobs are needed. Start it with one.",
        )
    collected = await collector.collect()
    request.app[NUMBERS].count_collection(collected)
    return http.json_response(collected)


@http.classic
async def upload(request: web.Request) -> web.Response:
    """Store the part `image` of a form as a blob under the name in the URL."""
    name, limits = _name(request), request.app[LIMITS]
    if request.content_type != "multipart/form-data":
        raise Error(Code.INVALID_REQUEST, "Image not found")
    stored: PutResult | None = None
    form = Form(request, idle_timeout=limits.idle_timeout, limit=limits.blob + _CHUNK)
    async with aclosing(form.parts()) as parts:
        async for part in parts:
            if part.name == "image" and stored is None:
                stored = await _store(request, part.chunks(), None)
    if stored is None:
        raise Error(Code.INVALID_REQUEST, "Image not found")
    await request.app[STORE].name(name, stored.digest)
    return web.Response()


@http.classic
async def classic_download(request: web.Request) -> web.StreamResponse:
    """Send the blob to which the id of a task or of a lease, or a name, refers."""
    caller = http.caller(request)
    tenant = caller.tenant if caller.via == "classic" else None
    store, tasks = request.app[STORE], request.app[TASKS]
    blob = await classic.find(store, tasks, request.match_info["name"], tenant=tenant)
    return await _send(request, blob.digest, verify=False, immutable=False)


async def _send(request: web.Request, digest: str, *, verify: bool, immutable: bool) -> web.StreamResponse:
    numbers = request.app[NUMBERS]
    try:
        async with request.app[STORE].open(digest, verify=verify) as reading:
            response, sent = await download.send(request, reading, numbers.damaged.inc, immutable=immutable)
    except Error as error:
        if error.code is Code.DAMAGED_BLOB:
            numbers.damaged.inc()
        raise
    numbers.sent.inc(sent)
    return response


async def _store(request: web.Request, chunks: AsyncIterator[bytes], expected: str | None) -> PutResult:
    limit = request.app[LIMITS].blob
    if request.content_length is not None and request.content_length > limit + _CHUNK:
        raise Error(Code.TOO_LARGE, f"A blob has at most {limit} bytes.", limit=limit)
    stored = await request.app[STORE].put(chunks, expected=expected, limit=limit)
    request.app[NUMBERS].count_put(stored)
    return stored


def _name(request: web.Request) -> str:
    name = request.match_info["name"]
    if len(name) > MAX_NAME:
        raise Error(Code.INVALID_REQUEST, f"A name has at most {MAX_NAME} characters.", position="id")
    return name


async def _in_time(request: web.Request, reading: Awaitable[T]) -> T:
    idle_timeout = request.app[LIMITS].idle_timeout
    try:
        async with asyncio.timeout(idle_timeout):
            return await reading
    except TimeoutError:
        raise Error(Code.INVALID_REQUEST, f"Nothing arrived for {idle_timeout:g} s; the upload was dropped.") from None
    except web.RequestPayloadError as error:
        raise malformed.refusal(error) from None


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Stream the body. Raises INVALID_REQUEST if the client sends nothing for too long or disconnects."""
    content = request.content
    while not content.at_eof():
        yield await _in_time(request, content.readany())
