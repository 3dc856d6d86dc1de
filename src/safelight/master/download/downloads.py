"""Stream results and originals from storage, with headers that keep browsers from running them as a page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Annotated, Any
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.client.master import output_filename
from safelight.client.storage import BlobAnswer, StorageClient
from safelight.errors import Code, Error
from safelight.files.sending import send_file
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import BINARY, Endpoint
from safelight.untrusted.photos import LOOKED_AT, media_type_or_bytes, saved_as
from safelight.wire import Blob, NewBlobLink, Output, State, Task

log = logging.getLogger(__name__)

_ASKED = ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
_ANSWERED = ("Content-Length", "Content-Range", "ETag", "Accept-Ranges", "Last-Modified")
_HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, no-cache",
}
PARTLY: dict[int, dict[str, Any]] = {206: {"image/*": BINARY}, 304: {}}
"""The answers to Range and to conditional requests."""
_ELSEWHERE: dict[int, dict[str, Any]] = {**PARTLY, 307: {}}
"""The same, and a redirect to the bucket."""
_AT_ONCE = 256 * 1024
"""Bytes of a file to send in one call; the client must read them within `_STALL_TIMEOUT`, also if it is slow."""
_CONDITIONS = ("If-Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
_REDIRECTED = 1 << 20
"""Bytes from which on a client is redirected to a public bucket; sending a smaller file costs less than a redirect."""
_LINK_LASTS = 60
_ASK_AGAIN = 60.0
"""Seconds before storage is asked again whether clients can reach its bucket, after it said no."""
_STALL_TIMEOUT = 60.0
"""Seconds after which a client that reads nothing is disconnected."""


LOST = {Code.NOT_FOUND: "missing", Code.DAMAGED_BLOB: "damaged"}
"""The errors of a blob that storage has lost, and what it is called for people."""


class ResultQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The output to send, and whether a browser should save it."""

    output: Annotated[str, Meta(description="its name; without one, the first by name", max_length=64)] | None = None
    download: Annotated[bool, Meta(description="let a browser save it rather than show it")] = False
    link: Annotated[str, Meta(description="the signature of a signed link", max_length=256)] | None = None


class OriginalQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a browser should save it."""

    download: Annotated[bool, Meta(description="let a browser save it rather than show it")] = False
    link: Annotated[str, Meta(description="the signature of a signed link", max_length=256)] | None = None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A blob to send, the headers that describe it, and what to do if storage has lost it."""

    digest: str
    media_type: str
    filename: str
    size: int
    attached: bool = False
    remedy: str = "Rerun its task to make it again."


class Downloads:
    """The handlers of results and originals."""

    def __init__(self, db: DbClient, storage: StorageClient) -> None:
        self._db = db
        self._storage = storage
        self._no_links_until = 0.0

    async def result(self, request: web.Request) -> web.StreamResponse:
        """`GET /task/{id}/result`."""
        query = http.query(request, ResultQuery)
        task = await self._db.get(request.match_info["id"], tenant=tenant_of(request))
        file = await self.result_file(task, query.output, attached=query.download)
        return await self._redirect(request, file) or await self.send(request, file)

    async def original(self, request: web.Request) -> web.StreamResponse:
        """`GET /task/{id}/original`."""
        query = http.query(request, OriginalQuery)
        task = await self._db.get(request.match_info["id"], tenant=tenant_of(request))
        file = await self.original_file(task, attached=query.download)
        return await self._redirect(request, file) or await self.send(request, file)

    async def result_file(self, task: Task, name: str | None = None, *, attached: bool = False) -> File:
        """Find an output of a task. Raises NOT_FOUND; CONFLICT before the end; the failure of the task."""
        if task.state is not State.FINISHED:
            raise _no_result(task)
        if not task.outputs and task.lease is not None:
            # A classic worker finished the task: its result is stored under the id of its lease.
            task = task.evolve(outputs=[await self.named_output(await self._storage.named(task.lease))])
        output = next((made for made in task.outputs if name in (None, made.name)), None)
        if output is None:
            known = ", ".join(made.name for made in task.outputs) or "none"
            raise Error(Code.NOT_FOUND, f"This task has no output {name!r}; its outputs: {known}.", position="output")
        return File(
            digest=output.digest,
            media_type=output.media_type,
            filename=output_filename(task, output.name),
            size=output.size,
            attached=attached,
        )

    async def named_output(self, blob: Blob) -> Output:
        """Describe the result that a classic worker stored."""
        return Output(name="image", digest=blob.digest, size=blob.size, media_type=await self.media_type(blob))

    async def original_file(self, task: Task, *, attached: bool = False) -> File:
        """Find the original of a task; that of a classic task is stored under its id. Raises NOT_FOUND, CONFLICT."""
        if task.input is not None:
            blob, media_type = task.input, task.media_type
        elif task.state is State.UPLOADING:
            raise Error(Code.CONFLICT, "The photo of this task is still being uploaded.")
        else:
            blob = await self._storage.named(task.id)
            media_type = await self.media_type(blob)
        return File(
            digest=blob.digest,
            media_type=media_type,
            filename=saved_as(task.filename or task.id, media_type),
            size=blob.size,
            attached=attached,
            remedy="Upload it again.",
        )

    async def media_type(self, blob: Blob) -> str:
        """Return the media type of a blob, judged by its first bytes."""
        if blob.size == 0:
            return media_type_or_bytes(b"")
        headers = {"Range": f"bytes=0-{LOOKED_AT - 1}"}
        async with self._storage.open(blob.digest, headers=headers) as answer:
            head = await answer.read()
        return media_type_or_bytes(head)

    async def _redirect(self, request: web.Request, file: File) -> web.Response | None:
        """Redirect a client to the bucket for a large file, by a link for a minute; None if that is not possible.

        The web page gets the bytes from here, because its policy allows no other origin; so do conditional requests,
        because the bucket has ETags of its own.
        """
        for_page = request.headers.get("Sec-Fetch-Dest", "document") != "document"
        conditional = any(name in request.headers for name in _CONDITIONS)
        if request.method != "GET" or file.size < _REDIRECTED or for_page or conditional:
            return None
        if time.monotonic() < self._no_links_until:
            return None
        disposition = content_disposition(file.filename, attached=file.attached)
        wanted = NewBlobLink(media_type=file.media_type, disposition=disposition, seconds=_LINK_LASTS)
        url = (await self._storage.link(file.digest, wanted)).url
        if not url:
            self._no_links_until = time.monotonic() + _ASK_AGAIN
            return None
        return web.Response(
            status=307, headers={"Location": url, "Cache-Control": "no-store", "ETag": f'"{file.digest}"'}
        )

    async def send(self, request: web.Request, file: File) -> web.StreamResponse:
        """Stream a blob from storage, which also answers Range and conditional requests.

        Raises NOT_FOUND or DAMAGED_BLOB if storage has lost it.
        """
        asked = {name: request.headers[name] for name in _ASKED if name in request.headers}
        try:
            async with self._storage.open(file.digest, method=request.method, headers=asked) as answer:
                response = web.StreamResponse(status=answer.status, headers=_HARMLESS)
                for name in _ANSWERED:
                    if name in answer.headers:
                        response.headers[name] = answer.headers[name]
                response.content_type = file.media_type
                response.headers["Content-Disposition"] = content_disposition(file.filename, attached=file.attached)
                await response.prepare(request)
                await _send_body(request, response, answer)
                return response
        except Error as error:
            if error.code is Code.RANGE_NOT_SATISFIABLE:
                error.extra.setdefault("size", file.size)
            if error.code in LOST:
                sentence = f"{file.filename} is {LOST[error.code]} in storage. {file.remedy}"
                raise Error(error.code, sentence) from error
            raise

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        errors = (
            Code.INVALID_REQUEST, Code.NOT_FOUND, Code.CONFLICT, Code.PRECONDITION_FAILED, Code.RANGE_NOT_SATISFIABLE,
            Code.OPERATION_FAILED, Code.UNSUPPORTED_FORMAT, Code.DAMAGED_BLOB, Code.UNAVAILABLE,
        )  # fmt: skip
        headers = {"Range": "a range of bytes", "If-None-Match": "the ETag of a cached copy"}
        return [
            Endpoint(
                method="GET", path="/task/{id}/result", handler=self.result, access=Access.READ | Access.LINK,
                tag="results",
                summary="Download an output",
                description="409 before the task has ended; the problem of its failure if it has failed.",
                query=ResultQuery, request_headers=headers, answer={"image/*": BINARY}, also=_ELSEWHERE, errors=errors,
            ),
            Endpoint(
                method="GET", path="/task/{id}/original", handler=self.original, access=Access.READ | Access.LINK,
                tag="results",
                summary="Download the photo as it was uploaded", query=OriginalQuery, request_headers=headers,
                answer={"image/*": BINARY}, also=_ELSEWHERE, errors=errors,
            ),
        ]  # fmt: skip


async def _send_body(request: web.Request, response: web.StreamResponse, answer: BlobAnswer) -> None:
    """Send the bytes of a blob, by sendfile if this process has it as a file.

    If that fails, close the connection, so that an incomplete body is not taken for a complete one.
    """
    if request.method == "HEAD" or answer.status == 304:
        return
    try:
        if answer.file is not None and request.transport is not None:
            file, span = answer.file
            for start in range(span.start, span.stop, _AT_ONCE):
                await _taken(send_file(request.transport, file, start, min(_AT_ONCE, span.stop - start)))
        else:
            async for chunk in answer.chunks():
                await _taken(response.write(chunk))
        await _taken(response.write_eof())
    except _LeftError as left:
        log.debug("The client of %s has disconnected: %s", request.path, left)
        _abort(request)
    except (aiohttp.ClientError, TimeoutError, OSError, Error, asyncio.IncompleteReadError) as error:
        log.warning("A download of %s was interrupted: %s", request.path, error or type(error).__name__)
        _abort(request)


class _LeftError(Exception):
    """A client has closed its connection, or does not read."""


async def _taken(sending: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(_STALL_TIMEOUT):
            await sending
    except (ConnectionError, TimeoutError) as error:
        raise _LeftError(str(error) or "it reads nothing") from None


def _no_result(task: Task) -> Error:
    if task.state in (State.FAILED, State.QUARANTINED) and task.failure is not None:
        error = task.failure.error()
        # The task has ended, so repeating the request is useless even if the error was transient.
        return Error(Code.CONFLICT, error.detail, failure=error.code.value) if error.transient else error
    sentences = {
        State.UPLOADING: "The photo of this task is still being uploaded.",
        State.WAITING: "This task is waiting for a worker. Follow its events, or try again later.",
        State.WORKING: "A worker is processing this task. Follow its events, or try again later.",
        State.CANCELLED: "This task was cancelled and has no result. Retry it if you want one.",
    }
    return Error(Code.CONFLICT, sentences.get(task.state, "This task has no result."), state=task.state)


def content_disposition(filename: str, *, attached: bool) -> str:
    """Return a Content-Disposition that every browser understands (RFC 6266, RFC 5987)."""
    kind = "attachment" if attached else "inline"
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%;/' else "_" for c in filename)
    exact = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'{kind}; filename="{plain}"{exact}'


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
