"""Resumable uploads by the tus protocol 1.0.0 (tus.io): creation (with upload), checksum, expiration, termination.

Chunks are streamed to storage, which keeps them, so any master can take the next one. If an instance of storage dies
meanwhile, the master sends the missing bytes to another one (`segments`). When the last byte has arrived, the upload
becomes a blob and one task, however often that is tried, because the task's idempotency key is the id of the upload.
The last PATCH and every HEAD after it answer with the id of the task in `Safelight-Task`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from email.utils import formatdate

import msgspec
from aiohttp import hdrs, web

from safelight import http, tracing
from safelight.access import route
from safelight.access.caller import Access
from safelight.access.connections.places import Places
from safelight.access.route import Route
from safelight.client.partials import PartialClient
from safelight.errors import Code, Error
from safelight.http.silence import in_time
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import tenant_of
from safelight.master.download.downloads import Downloads
from safelight.master.metrics import Metrics
from safelight.master.recipes.recipe_book import RecipeBook, choose
from safelight.master.upload import segments
from safelight.master.upload.ingest import too_large
from safelight.master.upload.replay import ReplayBudget
from safelight.master.upload.task_batcher import TaskBatcher
from safelight.master.upload.tus_headers import CHECKSUMS, TUS, checksum, length, metadata, number
from safelight.master.upload.uploads import Fields, in_address
from safelight.master.webhook.address import check_url
from safelight.untrusted import filenames, photos
from safelight.untrusted.validation import meant_by, refusal
from safelight.wire import DEFAULT_TENANT, NewPartial, NewTask, Partial

_CHUNK = "application/offset+octet-stream"
_PATH = "/uploads"
_ENDPOINTS = (_PATH, f"{_PATH}/")
"""Where uploads are created. In the examples of most clients, the address ends with a slash."""
_USED = (*Fields.__struct_fields__, "filename", "name")
"""The metadata that the master reads. Programs add others of their own, which may be binary."""
_OVERRIDE = "X-HTTP-Method-Override"
_SERVER = {
    "Tus-Version": "1.0.0",
    "Tus-Extension": "creation,creation-with-upload,checksum,expiration,termination",
    "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tus:
    """The handlers of resumable uploads."""

    def __init__(
        self,
        partials: PartialClient,
        batcher: TaskBatcher,
        recipes: RecipeBook,
        downloads: Downloads,
        metrics: Metrics,
        quotas: Quotas,
        *,
        places: Places,
        budget: ReplayBudget,
        limit: int,
        idle_timeout: float,
        private_webhooks: bool = False,
    ) -> None:
        """Take photos of at most `limit` bytes. Give up after `idle_timeout` seconds without one of the first bytes."""
        self._private_webhooks = private_webhooks
        self._partials = partials
        self._batcher = batcher
        self._recipes = recipes
        self._downloads = downloads
        self._metrics = metrics
        self._places = places
        self._budget = budget
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._quotas = quotas

    def routes(self) -> list[route.Route]:
        """Return the routes."""
        one = f"{_PATH}/{{id}}"
        create, append, overridden = (
            tracing.traced("upload")(self._checked(each))
            for each in (self._measured(self.create), self._measured(self.append), self.overridden)
        )
        return [
            *(Route(method="OPTIONS", path=at, handler=self.options, access=Access.OPEN) for at in (*_ENDPOINTS, one)),
            *(Route(method="POST", path=at, handler=create, access=Access.UPLOAD) for at in _ENDPOINTS),
            Route(method="HEAD", path=one, handler=self._checked(self.look), access=Access.UPLOAD),
            Route(method="PATCH", path=one, handler=append, access=Access.UPLOAD),
            *route.delete(one, self._checked(self.terminate), Access.UPLOAD),
            *route.post(one, overridden, Access.UPLOAD),
        ]

    async def options(self, _request: web.Request) -> web.Response:
        """Describe the capabilities of this server."""
        return web.Response(status=204, headers={**TUS, **_SERVER, "Tus-Max-Size": str(self._limit)})

    async def create(self, request: web.Request) -> web.Response:
        """`POST /uploads`: open an upload, and append the body of the request if it has one."""
        partial = await self._open(request)
        location = {"Location": http.location(request, f"{_PATH}/{partial.id}")}
        if request.content_type != _CHUNK:
            return web.Response(status=201, headers={**TUS, **location, **_expires(partial)})
        try:
            return await self._answer(await self._take(request, partial, 0), 201, location)
        except BaseException:
            # The client has no address at which to continue; it sends everything again as another upload.
            await asyncio.shield(self._forget(partial))
            raise

    async def _open(self, request: web.Request) -> Partial:
        size = length(request)
        if size > self._limit:
            raise too_large(self._limit)
        if size == 0:
            photos.media_type(b"")  # refuses
        given = {**in_address(request), **metadata(request, _USED)}
        fields = _fields(given)
        tenant = tenant_of(request)
        if fields.webhook is not None:
            check_url(fields.webhook, allow_private=self._private_webhooks)
        chosen = await self._recipes.of(tenant).choose(fields.recipe)
        return await self._partials.create(
            NewPartial(
                id=secrets.token_hex(16),
                size=size,
                room=await self._quotas.room(tenant),
                metadata={
                    "tenant": tenant,
                    "life": await self._quotas.life(tenant),
                    "header": request.headers.get("Upload-Metadata", ""),
                    "filename": filenames.clean(given.get("filename") or given.get("name") or ""),
                    "batch": fields.batch,
                    "priority": str(fields.priority),
                    "webhook": fields.webhook or "",
                    # Store the recipe itself, since its name may mean another one when the last byte arrives.
                    "recipe": chosen.name,
                    "spec": bytes(chosen.spec).decode(),
                },
            )
        )

    async def look(self, request: web.Request) -> web.Response:
        """`HEAD /uploads/{id}`: answer with the offset; finish a complete upload if finishing was interrupted.

        While the upload cannot be read or finished, the answer is 423, which says that it is still there.
        """
        partial = await self._own(request)
        headers = {"Upload-Length": str(partial.size), "Cache-Control": "no-store"}
        if given := partial.metadata.get("header"):
            headers["Upload-Metadata"] = given
        return await self._answer(partial, 200, headers)

    async def append(self, request: web.Request) -> web.Response:
        """`PATCH /uploads/{id}`: append the next chunk."""
        if request.content_type != _CHUNK:
            raise Error(Code.UNSUPPORTED_FORMAT, f"Send a chunk of an upload as {_CHUNK}.")
        offset = number(request, "Upload-Offset")
        partial = await self._own(request)
        if offset != partial.offset:
            raise Error(Code.CONFLICT, f"The next chunk begins at {partial.offset}.", offset=partial.offset)
        if offset < partial.size or request.content_length:
            partial = await self._take(request, partial, offset)
        return await self._answer(partial, 204, {})

    async def terminate(self, request: web.Request) -> web.Response:
        """`DELETE /uploads/{id}`: delete an upload; its task stays."""
        await self._partials.delete((await self._own(request)).id)
        return web.Response(status=204, headers=TUS)

    async def overridden(self, request: web.Request) -> web.StreamResponse:
        """`POST` for clients that cannot send other methods; `X-HTTP-Method-Override` names the method."""
        append = self._measured(self.append)
        methods: dict[str, Handler] = {"HEAD": self.look, "PATCH": append, "DELETE": self.terminate}
        handler = methods.get(_method(request))
        if handler is None:
            raise Error(Code.METHOD_NOT_ALLOWED, "An upload takes HEAD, PATCH and DELETE.")
        return await handler(request)

    async def _own(self, request: web.Request) -> Partial:
        """Return the upload that a request names. Raises NOT_FOUND, also if it is another tenant's."""
        tenant, id = tenant_of(request), request.match_info["id"]  # noqa: A001 - an upload's id is called id
        try:
            partial = await self._partials.get(id)
            if partial.metadata.get("tenant", DEFAULT_TENANT) == tenant and await self._is_alive(partial):
                return partial
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
        raise Error(Code.NOT_FOUND, f"There is no upload {id[:64]!r}; it may have expired. Start it again.")

    async def _is_alive(self, partial: Partial) -> bool:
        """Return whether the tenant that opened an upload is still there, and not another one of its id."""
        kept = partial.metadata
        tenant, life = kept.get("tenant", DEFAULT_TENANT), kept.get("life")
        if life is None:  # an earlier version opened it
            return True
        return life == await self._quotas.life(tenant, cached=True) or life == await self._quotas.life(tenant)

    async def _take(self, request: web.Request, partial: Partial, offset: int) -> Partial:
        if (request.content_length or 0) > partial.size - offset:
            raise Error(Code.TOO_LARGE, "The chunk goes beyond the announced length.", limit=partial.size - offset)
        try:
            with self._places.take(http.client(request)) as place:
                body = place.counted(aiter(request.content.iter_any()))
                if offset == 0:
                    body = await _checked_type(body, partial.size, self._idle_timeout)
                async with self._quotas.upload(tenant_of(request)):
                    taken = await segments.append(
                        self._partials,
                        partial,
                        offset,
                        body,
                        self._budget,
                        length=request.content_length,
                        checksum=checksum(request),
                    )
        except Error as error:
            if error.code in (Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT):
                await self._partials.delete(partial.id)
            raise
        self._metrics.bytes.inc(taken.offset - offset)
        return taken

    async def _answer(self, partial: Partial, status: int, headers: dict[str, str]) -> web.Response:
        if partial.offset == partial.size:
            partial = await self._finish(partial)
            headers = {**headers, "Safelight-Task": partial.outcome}
        offset = {"Upload-Offset": str(partial.offset)}
        return web.Response(status=status, headers={**TUS, **headers, **offset, **_expires(partial)})

    async def _finish(self, partial: Partial) -> Partial:
        """Turn a complete upload into a blob and one task. Each step can be repeated after a crash."""
        if partial.outcome:
            return partial
        blob = await self._partials.finish(partial.id)
        kind = await self._downloads.media_type(blob)
        if kind not in photos.EXTENSIONS:
            await self._partials.delete(partial.id)
            raise Error(Code.NOT_AN_IMAGE, "The file is not an image of a known format.")
        kept = partial.metadata
        chosen = choose(await self._recipes.read(kept["spec"].encode(), toml=False), kept["recipe"])
        task = await self._batcher.create(
            NewTask(
                tenant=kept.get("tenant", DEFAULT_TENANT),
                interactive=not kept["batch"],
                input=blob,
                filename=kept["filename"],
                media_type=kind,
                recipe=chosen.name,
                recipe_digest=chosen.digest,
                spec=chosen.spec,
                classic=chosen.classic,
                priority=int(kept["priority"]),
                batch=kept["batch"],
                webhook=kept.get("webhook") or None,
                idempotency_key=f"upload.{partial.id}",
            )
        )
        self._metrics.uploads.inc()
        return await self._partials.close(partial.id, task.id)

    async def _forget(self, partial: Partial) -> None:
        with contextlib.suppress(Error):  # it was deleted already, or is removed when it expires
            await self._partials.delete(partial.id)

    def _measured(self, handler: Handler) -> Handler:
        """Count what is refused, and measure the requests that bring the last byte of a photo."""

        async def handle(request: web.Request) -> web.StreamResponse:
            start = time.perf_counter()
            try:
                response = await handler(request)
            except Error as error:
                self._metrics.refused.labels(error.code.value).inc()
                raise
            if "Safelight-Task" in response.headers:
                self._metrics.upload_seconds.observe(time.perf_counter() - start)
            return response

        return handle

    def _checked(self, handler: Handler) -> Handler:
        """Check the protocol's version, and answer errors as the protocol requires."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Tus-Resumable") != "1.0.0":
                sentence = "This server supports tus 1.0.0. Send the header Tus-Resumable: 1.0.0."
                raise Error(Code.PRECONDITION_FAILED, sentence)
            return await handler(request)

        return http.refusing(handle, _problem)


def _method(request: web.Request) -> str:
    """Return the method that the client means."""
    return request.headers.get(_OVERRIDE, request.method).upper()


def _problem(request: web.Request, error: Error) -> web.Response:
    """Answer with the protocol's own status for an error, also in the document."""
    # After any other error of HEAD, clients open another upload, send everything again and leave this one behind.
    locked = error.extra.get("busy") or (_method(request) == hdrs.METH_HEAD and error.transient)
    if error.code is Code.DIGEST_MISMATCH:
        error.extra["status"] = 460
    elif locked:
        error.extra["status"] = 423
    response = http.problem_response(error)
    response.headers.update(TUS)
    if error.code is Code.PRECONDITION_FAILED:
        response.headers["Tus-Version"] = _SERVER["Tus-Version"]
    if error.code is Code.DIGEST_MISMATCH:
        response.set_status(460, "Checksum Mismatch")
    if locked:
        response.set_status(423, "Locked")
    if (offset := error.extra.get("offset")) is not None:
        response.headers["Upload-Offset"] = str(offset)
    return response


async def _checked_type(body: AsyncIterator[bytes], size: int, idle_timeout: float) -> AsyncIterator[bytes]:
    """Refuse a file whose first bytes are not those of a photo; otherwise yield these bytes and the rest.

    Raises UNAVAILABLE if nothing arrives for `idle_timeout` seconds; for the rest of the body, storage has a limit.
    """
    head = bytearray()
    async with aclosing(in_time(body, idle_timeout)) as chunks:
        async for chunk in chunks:
            head += chunk
            if len(head) >= photos.LOOKED_AT:
                break
    if len(head) >= min(size, photos.LOOKED_AT):  # otherwise it is checked at the end
        photos.media_type(bytes(head[: photos.LOOKED_AT]))

    async def joined() -> AsyncIterator[bytes]:
        yield bytes(head)
        async for chunk in body:
            yield chunk

    return joined()


def _fields(given: dict[str, str]) -> Fields:
    names = Fields.__struct_fields__
    known = {name: given[name] for name in names if given.get(name)}
    for name in given.keys() - names:
        # Programs add metadata of their own, but a misspelt recipe must not be another recipe.
        if meant := meant_by(name, names):
            sentence = f"Upload-Metadata has no field {name!r}; did you mean {meant}?"
            raise Error(Code.INVALID_REQUEST, sentence, position=name)
    try:
        return msgspec.convert(known, Fields, strict=False)
    except msgspec.ValidationError as error:
        problem = refusal(error, Fields, flat=True)
        raise Error(problem.code, f"Upload-Metadata: {problem.detail}", **problem.extra) from None


def _expires(partial: Partial) -> dict[str, str]:
    return {"Upload-Expires": formatdate(partial.expires, usegmt=True)}
