"""Live events: server-sent events for browsers, and long polls with JSON for programs."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from contextlib import suppress
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import tenant_of
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.master.live.feed import Feed, stream_id
from safelight.master.live.readers import Readers
from safelight.master.metrics import Metrics
from safelight.wire import EventPage

log = logging.getLogger(__name__)

_STREAM = "text/event-stream"
_RETRY = b"retry: 2000\n\n"
_KEEP_ALIVE = 15.0
_ADMITTED_FOR = 1.0
"""Seconds after which a stream's credential is checked again before anything more is sent."""
_PAGE = 500
_BUFFER = 128 * 1024
_BIGGEST = 2**63 - 1
_ID = re.compile(r"([0-9]{1,19})(?:-([0-9A-Za-z-]{1,64}))?")
_HEADERS = {
    "Content-Type": _STREAM,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy must not buffer events
    "X-Content-Type-Options": "nosniff",
}

After = Annotated[int, Meta(ge=0, le=_BIGGEST, description="the number of the last known change; default: now")]


class TaskEventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """After which change to read the changes of a task. `wait` and `limit` apply to JSON."""

    after: After | None = None
    wait: Annotated[float, Meta(ge=0, le=60, description="seconds to wait for the first change")] = 0.0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    known: Annotated[str, Meta(max_length=64, description="the `db` of the previous page or stream id")] = ""


class EventQuery(TaskEventQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """After which change to read, and of which task."""

    task: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Events:
    """The handlers of live events."""

    def __init__(
        self, feed: Feed, db: DbClient, quotas: Quotas, metrics: Metrics, *, stall_timeout: float, readers: int
    ) -> None:
        """Disconnect readers that do not read for `stall_timeout` seconds; allow at most `readers` streams."""
        self._feed = feed
        self._db = db
        self._quotas = quotas
        self._metrics = metrics
        self._stall_timeout = stall_timeout
        self._readers = Readers(readers)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End every stream now."""
        self._stopping.set()
        self._feed.stop()

    async def all(self, request: web.Request) -> web.StreamResponse:
        """`GET /events`."""
        query = http.query(request, EventQuery)
        return await self._answer(request, query, query.task)

    async def of_task(self, request: web.Request) -> web.StreamResponse:
        """`GET /task/{id}/events`."""
        query = http.query(request, TaskEventQuery)
        task = await self._db.get(request.match_info["id"], tenant=tenant_of(request))
        return await self._answer(request, query, task.id)

    async def _answer(self, request: web.Request, query: TaskEventQuery, task: str | None) -> web.StreamResponse:
        after, known = _resumed(request)
        if after is None:  # a browser that resumes a stream repeats its address, with the `after` of its beginning
            after, known = query.after, query.known
        if after is None:
            after = await self._feed.now()
        accept = request.headers.get("Accept", "")
        if JSON in accept and _STREAM not in accept:
            tenant = tenant_of(request)
            since = await self._quotas.after_event(tenant)
            page, _ = await self._feed.read(
                after, limit=query.limit, wait=query.wait, task=task, tenant=tenant, since=since, known=known
            )
            if query.wait and (error := await _refused_now(request)) is not None:
                raise error
            return http.json_response(page)
        with self._readers.take(tenant_of(request), request.transport):
            if request.method == "HEAD":  # the headers alone, which are sent when this returns
                return web.StreamResponse(headers=_HEADERS)
            self._metrics.readers.set(len(self._readers))
            try:
                return await self._stream(request, after, known or self._feed.db, task)
            finally:
                self._metrics.readers.set(len(self._readers) - 1)

    async def _stream(self, request: web.Request, after: int, known: str, task: str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        _bound_buffer(request)
        tenant = tenant_of(request)
        data = _RETRY + b"id: %b\n\n" % stream_id(after, known)
        checked = time.monotonic()
        try:
            while not self._stopping.is_set():
                # A client that does not read must not use up memory; it can resume where it was disconnected.
                async with asyncio.timeout(self._stall_timeout):
                    await response.write(data)
                after, known, data = await self._next(after, known, task, tenant)
                if (now := time.monotonic()) - checked >= _ADMITTED_FOR:
                    checked = now
                    if (error := await _refused_now(request)) is not None:
                        log.debug("An event stream ends with its credential: %s", error.detail)
                        break
            await response.write_eof()
        except TimeoutError:
            log.info("Closed an event stream whose reader does not read", extra={"remote": request.remote})
            self._metrics.slow_readers.inc()
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the reader has disconnected
        return response

    async def _next(self, after: int, known: str, task: str | None, tenant: str) -> tuple[int, str, bytes]:
        try:
            since = await self._quotas.after_event(tenant)
            page, frames = await self._feed.read(
                after, limit=_PAGE, wait=_KEEP_ALIVE, task=task, tenant=tenant, since=since, known=known
            )
        except Error as error:  # old events are read from db, which is not available
            log.debug("An event stream pauses: %s", error.detail)
            await asyncio.sleep(1.0)
            return after, known, b": %b\n\n" % error.code.value.encode()
        missed = b""
        if page.restored or after < page.oldest:
            missed = b'event: missed\ndata: {"oldest":%d}\n\n' % page.oldest
        if frames:
            return page.last, page.db, missed + b"".join(frames)
        # An id without data is not an event, but an interrupted stream resumes from it.
        return page.last, page.db, missed + b": keep-alive\nid: %b\n\n" % stream_id(page.last, page.db)

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        answer = {_STREAM: {"type": "string"}, JSON: EventPage}
        description = (
            "Server-sent events, each with an Event as data and, as id, its number, a hyphen and the name of the "
            "database; a broken stream resumes by Last-Event-ID, or by `after` and `known`. An event named "
            "`missed` means that retention removed some events, or that an older copy of the database was "
            "restored: read the tasks again. With `Accept: application/json`, one page as a long poll."
        )
        headers = {"Last-Event-ID": "the id of the last known change, or its number, as browsers send it"}
        errors = (Code.INVALID_REQUEST, Code.TOO_MANY_REQUESTS, Code.UNAVAILABLE)
        return [
            Endpoint(
                method="GET", path="/events", handler=self.all, access=Access.READ,
                tag="events", summary="Follow the changes of all tasks",
                description=description, query=EventQuery, request_headers=headers, answer=answer, errors=errors,
            ),
            Endpoint(
                method="GET", path="/task/{id}/events", handler=self.of_task, access=Access.READ, tag="events",
                summary="Follow the changes of one task", description=description, query=TaskEventQuery,
                request_headers=headers, answer=answer, errors=(*errors, Code.NOT_FOUND),
            ),
        ]  # fmt: skip


async def _refused_now(request: web.Request) -> Error | None:
    """Return UNAUTHENTICATED or FORBIDDEN if an admitted request would be refused now.

    Its key may have been revoked, its session may have ended, its tenant may be disabled. While nobody can tell, it
    stays admitted.
    """
    gate = request.app[http.SERVICE].gate
    try:
        if gate.recognise(request, Access.READ) is None:
            await gate.admit(request, Access.READ)
    except Error as error:
        return error if error.code in (Code.UNAUTHENTICATED, Code.FORBIDDEN) else None
    return None


def _bound_buffer(request: web.Request) -> None:
    """Limit the kernel's send buffer, which could otherwise hold megabytes for each slow reader."""
    connected = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connected is not None:
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


def _resumed(request: web.Request) -> tuple[int | None, str]:
    """Return the number after which a stream resumes, and the database that gave it if the id names it."""
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return None, ""
    found = _ID.fullmatch(text)
    if found is None or int(found[1]) > _BIGGEST:
        sentence = "Last-Event-ID is the id or the number of a change, as the stream gave it."
        raise Error(Code.INVALID_REQUEST, sentence, position="Last-Event-ID")
    return int(found[1]), found[2] or ""
