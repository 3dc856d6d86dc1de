"""An upload's multipart form as it comes in: parts in any order, none of them held in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from safelight.errors import Code, Error

_PIECE = 1 << 18
_SLOWEST = 1024
"""Bytes per second that a client must send on average, once the grace is over: a place among the uploads is scarce."""
_GRACE = 60.0


class Form:
    """The parts of one request's body."""

    def __init__(self, request: web.Request, *, silence: float, limit: int) -> None:
        """Give up after `silence` seconds without a byte, or when all parts together have more than `limit` bytes.

        Raises INVALID_REQUEST for a body that is no form.
        """
        if request.content_type != "multipart/form-data":
            raise Error(
                Code.INVALID_REQUEST,
                "Send the photo as multipart/form-data with a part named image (curl -F image=@photo.jpg).",
            )
        self._request = request
        self._pace = _Pace(silence, limit)

    async def parts(self) -> AsyncGenerator[Part]:
        """Go through the parts; what is left unread of one is skipped. Raises INVALID_REQUEST where it is broken."""
        with _explained():
            reader = await self._request.multipart()
        while True:
            with _explained():
                async with self._pace.wait():
                    found = await reader.next()
                if found is None:
                    return
                if isinstance(found, MultipartReader):
                    raise Error(
                        Code.INVALID_REQUEST, "A part of the form is a form itself; send the photos side by side."
                    )
                part = Part(found, self._pace)
            yield part
            await part.skip()


class Part:
    """One part. Its bytes can be read once."""

    def __init__(self, reader: BodyPartReader, pace: _Pace) -> None:
        with _explained():
            self.name = reader.name or ""
            self.filename = clean_filename(reader.filename or "")
        self._reader = reader
        self._pace = pace

    async def pieces(self) -> AsyncIterator[bytes]:
        """Stream the bytes. Raises INVALID_REQUEST when the body breaks off or comes too slowly."""
        while not self._reader.at_eof():
            with _explained():
                async with self._pace.wait():
                    piece = await self._reader.read_chunk(_PIECE)
                self._pace.came(len(piece))
            if piece:
                yield piece

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

    def __init__(self, silence: float, limit: int) -> None:
        self._silence = silence
        self._limit = limit
        self._start = time.monotonic()
        self._bytes = 0

    def wait(self) -> asyncio.Timeout:
        return asyncio.timeout(self._silence)

    def came(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limit:
            raise Error(Code.TOO_LARGE, f"The request has more than {self._limit} bytes.", limit=self._limit)
        taken = time.monotonic() - self._start
        if taken > _GRACE and self._bytes < (taken - _GRACE) * _SLOWEST:
            raise Error(Code.INVALID_REQUEST, f"The upload came more slowly than {_SLOWEST} bytes a second.")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise Error(Code.INVALID_REQUEST, "The upload fell silent and was given up. Send it again.") from None
    except (ValueError, AssertionError, RuntimeError, LookupError, HttpProcessingError) as error:
        raise Error(
            Code.INVALID_REQUEST, f"The form is broken or incomplete: {error or type(error).__name__}."
        ) from None
    except web.RequestPayloadError as error:
        raise Error(Code.INVALID_REQUEST, f"The request's body broke off: {error}.") from None


def clean_filename(name: str) -> str:
    """What a person called the file: no folders, no control characters, at most 200 characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(c for c in last if c.isprintable()).strip()
    return "" if printable in {".", ".."} else printable[:200]
