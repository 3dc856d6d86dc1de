"""Photos on their way to the master, as a streamed multipart body."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from aiohttp.payload import AsyncIterablePayload, BytesPayload, Payload

_CHUNK = 1 << 18
_SMALL = 1 << 20
"""Less is sent at once and with its length, which costs least; a file is read at once."""
_TYPE = "application/octet-stream"

ON_THE_WAY = 60.0
"""Seconds that an answer to an upload may take longer than another: megabytes that were handed to the network have yet
to arrive, at a slow receiver too, and to be flushed to its disk.
"""

Source = Path | bytes | Callable[[], AsyncIterator[bytes]]


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """One photo to upload. `progress` is told the number of bytes sent with each piece."""

    source: Source
    filename: str | None = None
    progress: Callable[[int], None] | None = None


@asynccontextmanager
async def multipart(uploads: Sequence[Upload], fields: Mapping[str, str]) -> AsyncIterator[aiohttp.MultipartWriter]:
    """Make a body of text fields, then one part `image` for each upload; files are open while the context lasts."""
    writer = aiohttp.MultipartWriter("form-data")
    async with AsyncExitStack() as stack:
        for name, value in fields.items():
            part = writer.append(value)
            part.set_content_disposition("form-data", name=name)
        for upload in uploads:
            payload = await _payload(upload, stack)
            # As browsers and curl send it: UTF-8 as it is, not percent-encoded.
            payload.set_content_disposition("form-data", quote_fields=False, name="image", filename=_filename(upload))
            writer.append_payload(payload)
        yield writer


def _filename(upload: Upload) -> str:
    name = upload.filename
    if name is None:
        name = upload.source.name if isinstance(upload.source, Path) else "photo"
    # What no header can hold is left out (a name on disk may even be no text).
    return "".join(c for c in name.encode(errors="replace").decode() if c.isprintable())


async def _payload(upload: Upload, stack: AsyncExitStack) -> Payload:
    match upload.source:
        case bytes() as data if len(data) < _SMALL and upload.progress is None:
            return BytesPayload(data, content_type=_TYPE)
        case bytes() as data:
            pieces = _split(data)
        case Path() as path:
            file = stack.enter_context(await asyncio.to_thread(path.open, "rb"))
            first = await asyncio.to_thread(file.read, _SMALL)
            if len(first) < _SMALL and upload.progress is None:
                return BytesPayload(first, content_type=_TYPE)
            pieces = _read(file, first)
        case opener:
            pieces = opener()
    return AsyncIterablePayload(_counted(pieces, upload.progress), content_type=_TYPE)


async def _read(file: io.BufferedIOBase, first: bytes) -> AsyncIterator[bytes]:
    yield first
    while piece := await asyncio.to_thread(file.read, _CHUNK):
        yield piece


async def _split(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


async def _counted(pieces: AsyncIterator[bytes], progress: Callable[[int], None] | None) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece
        if progress is not None:
            progress(len(piece))
