"""An upload's multipart form as it comes in: parts in any order, none of them held in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from safelight.errors import Code, Error

_SLOWEST = 1024
"""Bytes per second that a client must send on average, once the grace is over: a place among the uploads is scarce."""
_GRACE = 60.0
_PARTS = 2000

_Event = Any
"""What the parser says: a `MultipartSegment` where a part begins, its bytes, None at its end."""


class Form:
    """The parts of one request's body."""

    def __init__(self, request: web.Request, *, idle_timeout: float, limit: int) -> None:
        """Give up after `idle_timeout` seconds without a byte, or when the body has more than `limit` bytes.

        Raises INVALID_REQUEST for a body that is no form.
        """
        kind, options = parse_options_header(request.headers.get("Content-Type", ""))
        if kind != "multipart/form-data" or not options.get("boundary"):
            sentence = "Send the photo as multipart/form-data with a part named image (curl -F image=@photo.jpg)."
            raise Error(Code.INVALID_REQUEST, sentence)
        self._content = request.content
        self._boundary = options["boundary"]
        self._pace = _Pace(idle_timeout, limit)

    async def parts(self) -> AsyncGenerator[Part]:
        """Go through the parts; what is left unread of one is skipped.

        Raises INVALID_REQUEST where the form is broken, incomplete or too slow, TOO_LARGE.
        """
        events = self._events()
        async for event in events:
            if isinstance(event, MultipartSegment):
                part = Part(event, events)
                yield part
                await part.skip()

    async def _events(self) -> AsyncGenerator[_Event]:
        try:
            with PushMultipartParser(self._boundary, max_segment_count=_PARTS) as parser:
                while piece := await self._read():
                    for event in parser.parse(piece):
                        yield event
        except MultipartError as error:
            raise Error(Code.INVALID_REQUEST, f"The form is broken or incomplete: {error}.") from None

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(self._pace.idle_timeout):
                piece = await self._content.readany()
        except TimeoutError:
            sentence = "The upload fell silent and was given up. Send it again."
            raise Error(Code.INVALID_REQUEST, sentence) from None
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            raise Error(Code.INVALID_REQUEST, f"The request's body broke off: {error}.") from None
        self._pace.came(len(piece))
        return piece


class Part:
    """One part. Its bytes can be read once."""

    def __init__(self, segment: MultipartSegment, events: AsyncGenerator[_Event]) -> None:
        self.name = segment.name or ""
        self.filename = clean_filename(segment.filename or "")
        self._events = events
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Stream the bytes; raises what `Form.parts` raises."""
        while not self._ended:
            event = await anext(self._events)
            if event is None:
                self._ended = True
            elif not isinstance(event, MultipartSegment):
                yield bytes(event)

    async def text(self, limit: int) -> str:
        """Read a field of at most `limit` bytes. Raises TOO_LARGE, INVALID_REQUEST."""
        data = bytearray()
        async for piece in self.pieces():
            data += piece
            if len(data) > limit:
                raise Error(Code.TOO_LARGE, f"The field {self.name} is longer than {limit} bytes.", limit=limit)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Error(Code.INVALID_REQUEST, f"The field {self.name} is not UTF-8 text.", position=self.name) from None

    async def skip(self) -> None:
        """Leave the rest unread."""
        async for _ in self.pieces():
            pass


class _Pace:
    """How slowly a client may send, and how much."""

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
            raise Error(Code.INVALID_REQUEST, f"The upload came more slowly than {_SLOWEST} bytes a second.")


def clean_filename(name: str) -> str:
    """What a person called the file: no folders, no control characters, at most 200 characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(c for c in last if c.isprintable()).strip()
    return "" if printable in {".", ".."} else printable[:200]
