"""Resumable uploads by the tus protocol 1.0.0 (tus.io): creation (with upload), checksum, expiration, termination.

Pieces go straight on to storage, which alone keeps them; any master can take the next piece. When the last byte is
there, the whole becomes a blob and one task, however often the end is reached: the task's idempotency key is the
upload's id. Its id is told in `Safelight-Task`, by the last PATCH and by every HEAD after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate

import msgspec
from aiohttp import web

from safelight import http, pictures
from safelight.access import route
from safelight.access.caller import Access
from safelight.access.route import Route
from safelight.client.partials import PartialClient
from safelight.errors import Code, Error, validation_problem
from safelight.form import clean_filename
from safelight.master.download.downloads import Downloads
from safelight.master.metrics import Metrics
from safelight.master.recipes.recipe_book import RecipeBook, choose
from safelight.master.upload.ingest import too_large
from safelight.master.upload.task_batcher import TaskBatcher
from safelight.master.upload.tus_headers import CHECKSUMS, TUS, checksum, metadata, number
from safelight.master.upload.uploads import Fields
from safelight.recipe import parse
from safelight.wire import NewPartial, NewTask, Partial

_PIECE = "application/offset+octet-stream"
_PATH = "/uploads"
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
        *,
        limit: int,
    ) -> None:
        """Take photos of at most `limit` bytes."""
        self._partials = partials
        self._batcher = batcher
        self._recipes = recipes
        self._downloads = downloads
        self._metrics = metrics
        self._limit = limit

    def routes(self) -> list[route.Route]:
        """Return the routes."""
        one = f"{_PATH}/{{id}}"
        return [
            *(Route(method="OPTIONS", path=path, handler=self.options, access=Access.OPEN) for path in (_PATH, one)),
            *route.post(_PATH, self._spoken(self.create), Access.UPLOAD),
            Route(method="HEAD", path=one, handler=self._spoken(self.look), access=Access.UPLOAD),
            Route(method="PATCH", path=one, handler=self._spoken(self.append), access=Access.UPLOAD),
            *route.delete(one, self._spoken(self.terminate), Access.UPLOAD),
            *route.post(one, self._spoken(self.overridden), Access.UPLOAD),
        ]

    async def options(self, _request: web.Request) -> web.Response:
        """Say what this server can do."""
        return web.Response(status=204, headers={**TUS, **_SERVER, "Tus-Max-Size": str(self._limit)})

    async def create(self, request: web.Request) -> web.Response:
        """`POST /uploads`: open an upload, and take its first piece where the request has one."""
        size = number(request, "Upload-Length")
        if size > self._limit:
            raise too_large(self._limit)
        if size == 0:
            pictures.media_type(b"")  # refuses
        given = metadata(request)
        fields = _fields(given)
        chosen = await self._recipes.choose(fields.recipe)
        partial = await self._partials.create(
            NewPartial(
                size=size,
                metadata={
                    "header": request.headers.get("Upload-Metadata", ""),
                    "filename": clean_filename(given.get("filename") or given.get("name") or ""),
                    "batch": fields.batch,
                    "priority": str(fields.priority),
                    # What the name means now is what is done, whatever it means when the last byte comes.
                    "recipe": chosen.name,
                    "spec": bytes(chosen.spec).decode(),
                },
            )
        )
        location = {"Location": http.location(request, f"{_PATH}/{partial.id}")}
        if request.content_type == _PIECE:
            partial = await self._take(request, partial, 0)
            return await self._answer(partial, 201, location)
        return web.Response(status=201, headers={**TUS, **location, **_expires(partial)})

    async def look(self, request: web.Request) -> web.Response:
        """`HEAD /uploads/{id}`: say how far it is; finish what was whole when somebody died."""
        partial = await self._partials.get(request.match_info["id"])
        headers = {"Upload-Length": str(partial.size), "Cache-Control": "no-store"}
        if given := partial.metadata.get("header"):
            headers["Upload-Metadata"] = given
        return await self._answer(partial, 200, headers)

    async def append(self, request: web.Request) -> web.Response:
        """`PATCH /uploads/{id}`: take the next piece."""
        if request.content_type != _PIECE:
            raise Error(Code.UNSUPPORTED_FORMAT, f"A piece of an upload is sent as {_PIECE}.")
        offset = number(request, "Upload-Offset")
        partial = await self._partials.get(request.match_info["id"])
        if offset != partial.offset or partial.outcome:
            raise Error(Code.CONFLICT, f"The next piece begins at {partial.offset}.", offset=partial.offset)
        if offset < partial.size:
            partial = await self._take(request, partial, offset)
        return await self._answer(partial, 204, {})

    async def terminate(self, request: web.Request) -> web.Response:
        """`DELETE /uploads/{id}`: forget an upload; a task that came of it stays."""
        await self._partials.delete(request.match_info["id"])
        return web.Response(status=204, headers=TUS)

    async def overridden(self, request: web.Request) -> web.StreamResponse:
        """`POST` for clients that can send nothing else: `X-HTTP-Method-Override` names the method."""
        methods: dict[str, Handler] = {"PATCH": self.append, "DELETE": self.terminate}
        handler = methods.get(request.headers.get("X-HTTP-Method-Override", "").upper())
        if handler is None:
            raise Error(Code.METHOD_NOT_ALLOWED, "An upload takes HEAD, PATCH and DELETE.")
        return await handler(request)

    async def _take(self, request: web.Request, partial: Partial, offset: int) -> Partial:
        if (request.content_length or 0) > partial.size - offset:
            raise Error(Code.TOO_LARGE, "The piece reaches past the announced length.", limit=partial.size - offset)
        body: AsyncIterator[bytes] = request.content.iter_any()
        try:
            if offset == 0:
                body = await _recognised(body, partial.size)
            taken = await self._partials.append(partial.id, offset, body, checksum=checksum(request))
        except Error as error:
            if error.code in (Code.NOT_AN_IMAGE, Code.UNSUPPORTED_FORMAT):
                await self._refuse(partial, error)
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
        """Make a whole upload a blob and a task, once; each step may be repeated after a crash."""
        if partial.outcome:
            return partial
        blob = await self._partials.finish(partial.id)
        kind = await self._downloads.media_type(blob)
        if kind not in pictures.EXTENSIONS:
            error = Error(Code.NOT_AN_IMAGE, "The file is not a picture of any known kind.")
            await self._refuse(partial, error)
            raise error
        kept = partial.metadata
        chosen = choose(parse(kept["spec"]), kept["recipe"])
        task = await self._batcher.create(
            NewTask(
                input=blob,
                filename=kept["filename"],
                media_type=kind,
                recipe=chosen.name,
                recipe_digest=chosen.digest,
                spec=chosen.spec,
                classic=chosen.classic,
                priority=int(kept["priority"]),
                batch=kept["batch"],
                idempotency_key=f"upload.{partial.id}",
            )
        )
        self._metrics.uploads.inc()
        return await self._partials.close(partial.id, task.id)

    async def _refuse(self, partial: Partial, error: Error) -> None:
        self._metrics.refused.labels(error.code.value).inc()
        await self._partials.delete(partial.id)

    def _spoken(self, handler: Handler) -> Handler:
        """Ask for the protocol's version, and answer errors the protocol's way."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Tus-Resumable") != "1.0.0":
                return _problem(Error(Code.PRECONDITION_FAILED, "Send Tus-Resumable: 1.0.0; that is spoken here."))
            try:
                return await handler(request)
            except Error as error:
                return _problem(error)

        return handle


def _problem(error: Error) -> web.Response:
    response = http.problem_response(error)
    response.headers.update(TUS)
    if error.code is Code.PRECONDITION_FAILED:
        response.headers["Tus-Version"] = _SERVER["Tus-Version"]
    if error.code is Code.DIGEST_MISMATCH:
        response.set_status(460, "Checksum Mismatch")
    if error.extra.get("busy"):
        response.set_status(423, "Locked")
    if (offset := error.extra.get("offset")) is not None:
        response.headers["Upload-Offset"] = str(offset)
    return response


async def _recognised(body: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """Look at a file's first bytes and refuse what is no picture; return them and the rest."""
    head = bytearray()
    async for chunk in body:
        head += chunk
        if len(head) >= pictures.LOOKED_AT:
            break
    if len(head) >= min(size, pictures.LOOKED_AT):  # a first piece that is too short is looked at when all is there
        pictures.media_type(bytes(head[: pictures.LOOKED_AT]))

    async def joined() -> AsyncIterator[bytes]:
        yield bytes(head)
        async for chunk in body:
            yield chunk

    return joined()


def _fields(given: dict[str, str]) -> Fields:
    known = {name: given[name] for name in ("recipe", "priority", "batch") if given.get(name)}
    try:
        return msgspec.convert(known, Fields, strict=False)
    except msgspec.ValidationError as error:
        sentence, position = validation_problem(error)
        raise Error(Code.INVALID_REQUEST, f"Upload-Metadata: {sentence}.", position=position) from None


def _expires(partial: Partial) -> dict[str, str]:
    return {"Upload-Expires": formatdate(partial.expires, usegmt=True)}
