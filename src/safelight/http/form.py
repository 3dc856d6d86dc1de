"""Read a multipart form as it arrives: parts in any order, without holding them in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from safelight.access import malformed
from safelight.access.connections.places import Place
from safelight.errors import Code, Error
from safelight.untrusted import filenames

_SLOWEST = 1024
"""Bytes per second that a client must send on average, after `_GRACE` seconds: the number of uploads is limited."""
_GRACE = 60.0
_PARTS = 2000
_LONGEST_BOUNDARY = 70  # RFC 2046

_Event = Any
"""What the parser yields: a `MultipartSegment` at the beginning of a part, its bytes, None at its end."""


class Form:
    """The form in the body of a request."""

    def __init__(self, request: web.Request, *, idle_timeout: float, limit: int, place: Place | None = None) -> None:
        """Give up after `idle_timeout` seconds without a byte, or when the body has more than `limit` bytes.

        Raises INVALID_REQUEST for a body that is not a form.
        """
        kind, options = parse_options_header(request.headers.get("Content-Type", ""))
        boundary = options.get("boundary", "")
        if kind != "multipart/form-data" or not (boundary.isascii() and 1 <= len(boundary) <= _LONGEST_BOUNDARY):
            raise Error(Code.INVALID_REQUEST, "Send multipart/form-data with a boundary (curl -F image=@photo.jpg).")
        self._content = request.content
        self._boundary = boundary
        self._pace = _Pace(idle_timeout, limit)
        self._place = place

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield the parts; the unread rest of each is skipped.

        Raises INVALID_REQUEST if the form is malformed, incomplete or too slow, and TOO_LARGE.
        """
        events = self._events()
        async for event in events:
            if isinstance(event, MultipartSegment):
                part = Part(event, events)
                yield part
                await part.skip()

    async def _events(self) -> AsyncGenerator[_Event]:
        try:
            with PushMultipartParser(self._boundary, max_segment_count=_PARTS, header_charset="latin-1") as parser:
                while chunk := await self._read():
                    for event in parser.parse(chunk):
                        yield event
        except MultipartError as error:
            raise Error(Code.INVALID_REQUEST, f"The form is malformed or incomplete: {error}.") from None

    async def _read(self) -> bytes:
        if self._place is None:
            return await _chunk(self._content, self._pace)
        with self._place.waiting():
            chunk = await _chunk(self._content, self._pace)
        self._place.came(len(chunk))
        return chunk


class Part:
    """A part of a form. Its bytes can be read once."""

    def __init__(self, segment: MultipartSegment, events: AsyncGenerator[_Event]) -> None:
        told = filenames.parameters(segment.header("Content-Disposition", ""))
        self.name = told.get("name", "")
        self.filename = filenames.clean(told.get("filename", ""))
        _check_plain(segment, self.name)
        self._events = events
        self._ended = False
        self._failure: Error | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Stream the bytes. Raises what `Form.parts` raises."""
        while not self._ended:
            event = await self._next()
            if event is None:
                self._ended = True
            elif not isinstance(event, MultipartSegment):
                yield bytes(event)

    async def _next(self) -> _Event:
        """Return the next event of the form, or raise what ended it, also if its reader has taken that for its own."""
        if self._failure is not None:
            raise self._failure
        try:
            return await anext(self._events)
        except Error as error:
            self._failure = error
            raise

    async def text(self, limit: int) -> str:
        """Read a field of at most `limit` bytes. Raises TOO_LARGE, INVALID_REQUEST."""
        data = bytearray()
        async for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                raise Error(Code.TOO_LARGE, f"The field {self.name} has more than {limit} bytes.", limit=limit)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Error(Code.INVALID_REQUEST, f"The field {self.name} is not UTF-8 text.", position=self.name) from None

    async def skip(self) -> None:
        """Skip the rest."""
        async for _ in self.chunks():
            pass


def _check_plain(segment: MultipartSegment, name: str) -> None:
    """Refuse an encoding that the parts of forms no longer have (RFC 7578), instead of taking it for the content.

    Otherwise a photo looks like no image, and a field has another value.
    """
    given = segment.header("Content-Transfer-Encoding", "").strip().lower()
    if given in ("base64", "quoted-printable"):
        sentence = f"The part {name[:64]} is in {given}. Send its bytes as they are, without Content-Transfer-Encoding."
        raise Error(Code.INVALID_REQUEST, sentence, position=name[:64])


async def _chunk(content: StreamReader, pace: _Pace) -> bytes:
    try:
        chunk = content.read_nowait()  # bytes that have already arrived need no timer
        if not chunk and not content.at_eof():
            async with asyncio.timeout(pace.idle_timeout):
                chunk = await content.readany()
    except TimeoutError:
        sentence = "Nothing arrived for too long, so the upload was dropped. Send it again."
        raise Error(Code.INVALID_REQUEST, sentence) from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise malformed.refusal(error) from None
    pace.came(len(chunk))
    return chunk


class _Pace:
    """Limits how slowly a client may send, and how much."""

    def __init__(self, idle_timeout: float, limit: int) -> None:
        self.idle_timeout = idle_timeout
        self._limit = limit
        self._start = time.monotonic()
        self._bytes = 0

    def came(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limit:
            raise Error(Code.TOO_LARGE, f"The request has more than {self._limit} bytes.", limit=self._limit)
        taken = time.monotonic() - self._start
        if taken > _GRACE and self._bytes < (taken - _GRACE) * _SLOWEST:
            raise Error(Code.INVALID_REQUEST, f"The upload was slower than {_SLOWEST} bytes per second.")


async def fields(request: web.Request, *, limit: int, idle_timeout: float = 30.0) -> dict[str, str]:
    """Read a small form, urlencoded or multipart, of at most `limit` bytes; ignore files in it.

    Raises INVALID_REQUEST for a malformed form or a repeated field, TOO_LARGE.
    """
    found: dict[str, str] = {}
    async for name, value in _pairs(request, limit, idle_timeout):
        if name in found:
            raise Error(Code.INVALID_REQUEST, f"Give the field {name[:64]} once.", position=name[:64])
        found[name] = value
    return found


async def _pairs(request: web.Request, limit: int, idle_timeout: float) -> AsyncIterator[tuple[str, str]]:
    if request.content_type == "application/x-www-form-urlencoded":
        body = bytearray()
        pace = _Pace(idle_timeout, limit)
        while chunk := await _chunk(request.content, pace):
            body += chunk
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_PARTS)
        except ValueError:
            raise Error(
                Code.INVALID_REQUEST, "The form is not urlencoded UTF-8 text, or has too many fields."
            ) from None
        for pair in pairs:
            yield pair
        return
    if request.content_type != "multipart/form-data":
        sentence = "Send a form, as application/x-www-form-urlencoded or multipart/form-data."
        raise Error(Code.INVALID_REQUEST, sentence)
    async with aclosing(Form(request, idle_timeout=idle_timeout, limit=limit).parts()) as parts:
        async for part in parts:
            if not part.filename:
                yield part.name, await part.text(limit)
