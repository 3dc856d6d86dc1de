"""Send a blob: conditional requests and ranges (RFC 9110), and sendfile where there is a file.

aiohttp's FileResponse would not do: its ETag is made from the file's time, which every deduplicated upload changes.
"""

from __future__ import annotations

import asyncio
import logging
import re

from aiohttp import ETag, web

from safelight.errors import Code, Error
from safelight.http import problem_response
from safelight.storage.store import OpenBlob

log = logging.getLogger(__name__)

_SLOWEST = 1024
"""Bytes per second that a client must take on average, after a grace period of `_GRACE` seconds."""
_GRACE = 60.0

_SAFE = {
    # What a user uploaded must never run as a page of ours.
    "X-Content-Type-Options": "nosniff",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


_NO_BYTES = re.compile(r"bytes=\s*-0+\s*")


async def send(request: web.Request, reading: OpenBlob, *, immutable: bool = True) -> tuple[web.StreamResponse, int]:
    """Answer GET or HEAD with a blob or a range of it; return the answer and how many bytes were sent.

    `immutable` says that the URL always refers to these bytes.
    """
    digest, size = reading.blob.digest, reading.blob.size
    caching = "private, max-age=31536000, immutable" if immutable else "no-cache"
    headers = {**_SAFE, "ETag": f'"{digest}"', "Cache-Control": caching, "Accept-Ranges": "bytes"}
    if request.if_match is not None and not _names(digest, request.if_match, weak=False):
        raise Error(Code.PRECONDITION_FAILED, "The blob does not have the ETag that If-Match requires.")
    if request.if_none_match is not None and _names(digest, request.if_none_match, weak=True):
        return web.Response(status=304, headers=headers), 0
    span = _range(request, digest, size)
    if span is not None and span.start >= size:
        answer = problem_response(Error(Code.RANGE_NOT_SATISFIABLE, f"The blob has only {size} bytes.", size=size))
        answer.headers["Content-Range"] = f"bytes */{size}"
        return answer, 0
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    response = web.StreamResponse(status=200 if span is None else 206, headers=headers)
    response.content_type = "application/octet-stream"
    return response, await _stream(request, response, reading, span or range(size))


def _names(digest: str, tags: tuple[ETag, ...], *, weak: bool) -> bool:
    return any(tag.value in ("*", digest) and (weak or not tag.is_weak) for tag in tags)


def _range(request: web.Request, digest: str, size: int) -> range | None:
    """Return the requested range, cut at the end of the blob; None for the whole blob.

    A request with several ranges, or with one that is not understood, may be answered with the whole (RFC 9110, 14.2).
    """
    if request.headers.get("If-Range", f'"{digest}"') != f'"{digest}"':
        return None
    if _NO_BYTES.fullmatch(request.headers.get("Range", "")):
        return range(size, size)  # the last 0 bytes cannot be sent (RFC 9110, 14.1.2)
    try:
        asked = request.http_range
    except ValueError:
        return None
    if asked.start is None:
        return None
    start = asked.start if asked.start >= 0 else max(0, size + asked.start)
    return range(start, size if asked.stop is None else max(start, min(asked.stop, size)))


async def _stream(request: web.Request, response: web.StreamResponse, reading: OpenBlob, span: range) -> int:
    response.content_length = len(span)
    try:
        async with asyncio.timeout(_GRACE + len(span) / _SLOWEST):
            await response.prepare(request)
            if request.method == "HEAD" or not span:
                return 0
            if reading.file is not None and request.transport is not None:
                # It waits for earlier bytes to be sent, and reads and writes where there is no sendfile.
                loop = asyncio.get_running_loop()
                await loop.sendfile(request.transport, reading.file, span.start, len(span))
            else:
                async for chunk in reading.chunks(span.start, span.stop):
                    await response.write(chunk)
            await response.write_eof()
    except (TimeoutError, ConnectionError, Error) as error:
        # The headers are sent already, so closing the connection is the only way to say that the body is incomplete.
        log.warning("Sending %s was interrupted: %s", reading.blob.digest, error or "the client is too slow")
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("interrupted") from None
    return len(span)
