"""Send a blob, with conditional requests and ranges (RFC 9110), and with sendfile if there is a file.

aiohttp's FileResponse is not suitable: it makes the ETag from the file's time, which every deduplicated upload changes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web

from safelight.errors import Code, Error
from safelight.files.sending import send_file
from safelight.storage.store import OpenBlob
from safelight.wire import Blob
from safelight.wire.conditions import names

log = logging.getLogger(__name__)

_SLOWEST = 1024
"""Bytes per second that a client must read on average, after a grace period of `_GRACE` seconds."""
_GRACE = 60.0

_IMMUTABLE = "private, max-age=31536000, immutable"

_SAFE = {
    # An uploaded file must never run as a page of ours.
    "X-Content-Type-Options": "nosniff",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}

_RANGE = re.compile(r"bytes=\s*(?:([0-9]{1,40})-([0-9]{0,40})|-([0-9]{1,40}))\s*", re.IGNORECASE | re.ASCII)


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request for a blob: a status, headers, and the range of bytes, if any."""

    status: int
    headers: dict[str, str]
    span: range


def select(blob: Blob, asked: Mapping[str, str], *, caching: str = _IMMUTABLE) -> Selected:
    """Evaluate the conditions and the range in a request's headers. `caching` is the answer's Cache-Control.

    Raises PRECONDITION_FAILED, RANGE_NOT_SATISFIABLE.
    """
    headers = {**_SAFE, "ETag": f'"{blob.digest}"', "Cache-Control": caching, "Accept-Ranges": "bytes"}
    if (tags := asked.get("If-Match")) and not names(tags, blob.digest, weak=False):
        raise Error(Code.PRECONDITION_FAILED, "The blob does not have the ETag that If-Match requires.")
    if (tags := asked.get("If-None-Match")) and names(tags, blob.digest, weak=True):
        return Selected(status=304, headers=headers, span=range(0))
    span = _range(asked, blob)
    if span is None:
        return Selected(status=200, headers=headers, span=range(blob.size))
    if span.start >= blob.size:
        raise Error(Code.RANGE_NOT_SATISFIABLE, f"The blob has only {blob.size} bytes.", size=blob.size)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{blob.size}"
    return Selected(status=206, headers=headers, span=span)


async def send(
    request: web.Request, reading: OpenBlob, damaged: Callable[[], None], *, immutable: bool = True
) -> tuple[web.StreamResponse, int]:
    """Answer GET or HEAD with a blob or a range of it; return the answer and how many bytes were sent.

    `immutable` says that the URL always refers to these bytes. `damaged` is called if they turn out to be damaged after
    the first were sent.
    """
    selected = select(reading.blob, request.headers, caching=_IMMUTABLE if immutable else "no-cache")
    if selected.status == 304:
        return web.Response(status=304, headers=selected.headers), 0
    response = web.StreamResponse(status=selected.status, headers=selected.headers)
    response.content_type = "application/octet-stream"
    return response, await _stream(request, response, reading, selected.span, damaged)


def _range(asked: Mapping[str, str], blob: Blob) -> range | None:
    """Return the requested range, cut at the end of the blob; None for the whole blob.

    A request with several ranges, or with an unknown one, may be answered with the whole blob (RFC 9110, 14.2).
    """
    if asked.get("If-Range", f'"{blob.digest}"') != f'"{blob.digest}"':
        return None
    if (found := _RANGE.fullmatch(asked.get("Range", "").strip())) is None:
        return None
    first, last, tail = found.groups()
    if tail is not None:
        # The last 0 bytes cannot be sent (RFC 9110, 14.1.2).
        return range(max(0, blob.size - int(tail)) if int(tail) else blob.size, blob.size)
    start, stop = int(first), int(last) + 1 if last else blob.size
    return None if start >= stop and last else range(start, max(start, min(stop, blob.size)))


async def _stream(
    request: web.Request, response: web.StreamResponse, reading: OpenBlob, span: range, damaged: Callable[[], None]
) -> int:
    response.content_length = len(span)
    try:
        async with asyncio.timeout(_GRACE + len(span) / _SLOWEST):
            await response.prepare(request)
            if request.method == "HEAD" or not span:
                return 0
            if reading.file is not None and request.transport is not None:
                await send_file(request.transport, reading.file, span.start, len(span))
            else:
                async for chunk in reading.chunks(span.start, span.stop):
                    await response.write(chunk)
            await response.write_eof()
    except (OSError, Error) as error:  # an error of the client or the disk, or a timeout
        # The headers are sent already, so closing the connection is the only way to say that the body is incomplete.
        if isinstance(error, Error) and error.code is Code.DAMAGED_BLOB:
            damaged()
        left = isinstance(error, (TimeoutError, ConnectionError))
        level = logging.DEBUG if left else logging.WARNING
        log.log(level, "Sending %s was interrupted: %s", reading.blob.digest, error or "the client is too slow")
        if request.transport is not None:
            request.transport.abort()
        return 0
    return len(span)
