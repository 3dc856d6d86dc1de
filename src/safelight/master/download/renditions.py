"""Make renditions (photos in a size and format that every browser shows) and previews for the web page.

Files that browsers can show are sent as they are. For others, a worker makes a rendition as an internal task, which is
deleted as soon as it is done. Its blob stays in storage until it is collected, and this master remembers it until then.
Renditions are therefore a cache: no list shows them, and they do not outlive their photos for long.

A preview is an internal task too, which its caller deletes once it is seen. Not every caller may or does, so this
master deletes it some minutes after it was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict, defaultdict
from typing import Annotated, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import BINARY, JSON, Endpoint
from safelight.master.api.public_schema import PublicTask, public
from safelight.master.download.downloads import Downloads, File
from safelight.master.live.feed import Feed
from safelight.master.recipes.recipe_book import RecipeBook, choose
from safelight.master.recipes.recipe_cache import Chosen
from safelight.master.upload.task_batcher import TaskBatcher
from safelight.recipe import parse
from safelight.wire import ENDED, Blob, NewTask, Task

_SHOWN = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"})
_SMALL_ENOUGH = {"small": 200_000, "large": 3_000_000}
"""Bytes up to which an image is sent as it is."""
_SIDES = {"small": 480, "large": 2048}
_WAIT = 60.0
"""Seconds after which to give up a rendition that no worker has made, until it is requested again."""
_QUEUED = 64
"""How many renditions of a tenant may be in progress at once, so that a tenant with a paused queue does not delay
others.
"""
_PREVIEW_WAIT = 60.0
_PREVIEW_KEPT = 15 * 60.0
"""Seconds after which an answered preview is deleted."""
_FAILED_KEPT = 60.0
"""Seconds for which the failure of a rendition is its answer; its cause may end: a damaged photo may be replaced."""
_KNOWN = 10_000
_AT_ONCE = 8
"""Tasks of a tenant at once."""
_PRIORITY = 100

Size = Literal["small", "large"]
T = TypeVar("T")


_Key = tuple[str, str, Size]
"""A tenant, the digest of a source, and a size. A rendition is never shared between tenants."""


class RenditionQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file to show: an output by its name or, without one, the original."""

    output: Annotated[str, Meta(max_length=64)] | None = None
    size: Size = "small"
    wait: Annotated[float, Meta(ge=0, le=60, description="seconds to wait for one that is being made")] = 15.0


class Preview(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipe to try on the photo of a task."""

    task: Annotated[str, Meta(min_length=1, max_length=128)]
    recipe: msgspec.Raw


class Renditions:
    """The handlers of renditions and previews."""

    def __init__(
        self,
        db: DbClient,
        book: RecipeBook,
        downloads: Downloads,
        batcher: TaskBatcher,
        feed: Feed,
        quotas: Quotas,
    ) -> None:
        self._db = db
        self._book = book
        self._downloads = downloads
        self._batcher = batcher
        self._feed = feed
        self._quotas = quotas
        self._made: OrderedDict[_Key, File] = OrderedDict()
        self._failed: OrderedDict[_Key, tuple[float, Error]] = OrderedDict()
        """The failures of renditions, and when they happened, by the monotonic clock."""
        self._making: dict[_Key, asyncio.Task[File]] = {}
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
        self._recipes = {size: _rendition_recipe(side) for size, side in _SIDES.items()}
        self._dropping: set[asyncio.Task[None]] = set()

    async def rendition(self, request: web.Request) -> web.StreamResponse:
        """`GET /task/{id}/rendition`."""
        query = http.query(request, RenditionQuery)
        task = await self._db.get(request.match_info["id"], tenant=tenant_of(request))
        if query.output is None:
            source = await self._downloads.original_file(task)
        else:
            source = await self._downloads.result_file(task, query.output)
        if source.media_type in _SHOWN and source.size <= _SMALL_ENOUGH[query.size]:
            return await self._downloads.send(request, source)
        file = await self._rendition_of(task.tenant, source, query.size, query.wait)
        if file is not None:
            try:
                return await self._downloads.send(request, file)
            except Error as error:
                if error.code not in (Code.NOT_FOUND, Code.DAMAGED_BLOB):
                    raise
                # It was collected, or has to be replaced.
                self._made.pop((task.tenant, source.digest, query.size), None)
        return web.Response(status=202, headers={"Retry-After": "1", "Cache-Control": "no-store"})

    async def preview(self, request: web.Request) -> web.Response:
        """`POST /preview`."""
        asked = await http.read_json(request, Preview)
        chosen = choose(await self._book.read(bytes(asked.recipe), toml=False), "preview")
        task = await self._db.get(asked.task, tenant=tenant_of(request))
        source = await self._downloads.original_file(task)
        await self._quotas.check(task.tenant)  # db lets internal tasks pass
        creating = asyncio.ensure_future(self._create(task.tenant, source, chosen))
        try:
            made = await self._ended(await asyncio.shield(creating), _PREVIEW_WAIT)
        except BaseException:
            await asyncio.shield(self._abandon(creating))
            raise
        asyncio.get_running_loop().call_later(_PREVIEW_KEPT, self._forget_preview, made.id)
        return http.json_response(public(made))

    async def _abandon(self, creating: asyncio.Future[Task]) -> None:
        """Delete the task of a preview that nobody waits for any more, also if it is only being created."""
        with contextlib.suppress(Error):
            await self._drop((await creating).id)

    def _forget_preview(self, id: str) -> None:
        dropping = asyncio.create_task(self._drop(id), name="preview")
        self._dropping.add(dropping)
        dropping.add_done_callback(self._dropping.discard)

    async def _rendition_of(self, tenant: str, source: File, size: Size, wait: float) -> File | None:
        """Return the rendition, or None if it takes longer than the caller waits."""
        key = (tenant, source.digest, size)
        if (file := self._made.get(key)) is not None:
            self._made.move_to_end(key)
            return file
        at, error = self._failed.get(key, (0.0, None))
        if error is not None and time.monotonic() - at < _FAILED_KEPT:
            raise error.with_traceback(None)  # or it would grow with each request
        making = self._making.get(key)
        if making is None:
            if sum(tenant == other for other, _, _ in self._making) >= _QUEUED:
                return None  # let the others go first; a repeated request queues again
            making = self._making[key] = asyncio.create_task(self._make(tenant, source, size), name="rendition")
            making.add_done_callback(lambda done: self._forget(key, done))
        done, _ = await asyncio.wait([making], timeout=wait)
        return making.result() if done else None

    def _forget(self, key: _Key, done: asyncio.Task[File]) -> None:
        del self._making[key]
        if done.cancelled():
            return
        error = done.exception()  # retrieve the error, since the callers may have left
        if isinstance(error, Error) and not error.transient:
            _remember(self._failed, key, (time.monotonic(), error))

    async def _make(self, tenant: str, source: File, size: Size) -> File:
        async with self._places[tenant]:
            task = await self._create(tenant, source, self._recipes[size])
            try:
                task = await self._ended(task, _WAIT)
                file = await self._downloads.result_file(task)
            finally:
                await self._drop(task.id)
        _remember(self._made, (tenant, source.digest, size), file)
        return file

    async def _create(self, tenant: str, source: File, chosen: Chosen) -> Task:
        return await self._batcher.create(
            NewTask(
                tenant=tenant,
                input=Blob(digest=source.digest, size=source.size),
                filename=source.filename,
                media_type=source.media_type,
                recipe=chosen.name,
                recipe_digest=chosen.digest,
                spec=chosen.spec,
                priority=_PRIORITY,
                internal=True,
                idempotency_key=f"rendition.{secrets.token_hex(16)}",
            )
        )

    async def _ended(self, task: Task, timeout: float) -> Task:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while task.state not in ENDED:
            page, _ = await self._feed.read(task.seq, wait=max(0.0, deadline - loop.time()), task=task.id)
            task = await self._db.get(task.id)
            if not page.events and task.state not in ENDED:
                sentence = "No worker has processed this yet. Try again later."
                raise Error(Code.UNAVAILABLE, sentence, retry_after=5)
        return task

    async def _drop(self, id: str) -> None:
        with contextlib.suppress(Error):  # a task that stays, or that a master leaves, is deleted with other old ones
            await self._db.delete(id)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        errors = (Code.INVALID_REQUEST, Code.NOT_FOUND, Code.CONFLICT, Code.OPERATION_FAILED, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/task/{id}/rendition", handler=self.rendition, access=Access.READ, tag="results",
                summary="See a photo or an output in a size and format for browsers",
                description=(
                    "Answers 202, without content, while a worker is still making it: ask again, or follow the "
                    "events of internal tasks to learn when it is ready."
                ), also={202: {}},
                query=RenditionQuery, answer={"image/*": BINARY}, errors=(*errors, Code.UNSUPPORTED_FORMAT),
            ),
            Endpoint(
                method="POST", path="/preview", handler=self.preview, access=Access.UPLOAD, tag="recipes",
                summary="Try a recipe on the photo of a task",
                description=(
                    "Answers when it has ended, with an internal task. Delete it once seen; otherwise it is deleted "
                    "after 15 minutes. The tenant's limits on waiting tasks and stored bytes apply."
                ),
                body={JSON: Preview}, answer={JSON: PublicTask},
                errors=(
                    Code.INVALID_REQUEST, Code.INVALID_RECIPE, Code.NOT_FOUND, Code.CONFLICT, Code.TOO_MANY_REQUESTS,
                    Code.UNAVAILABLE,
                ),
            ),
        ]  # fmt: skip


def _remember(known: OrderedDict[_Key, T], key: _Key, value: T) -> None:
    known[key] = value
    if len(known) > _KNOWN:
        known.popitem(last=False)


def _rendition_recipe(side: int) -> Chosen:
    output = {"operations": [{"op": "resize", "width": side, "height": side}], "format": "webp"}
    return choose(parse({"outputs": {"rendition": output}}), "rendition")
