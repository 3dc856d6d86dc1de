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
_TYPE = "application/octet-stream"

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
            payload.set_content_disposition("form-data", name="image", filename=_filename(upload))
            writer.append_payload(payload)
        yield writer


def _filename(upload: Upload) -> str:
    if upload.filename is not None:
        return upload.filename
    return upload.source.name if isinstance(upload.source, Path) else "photo"


async def _payload(upload: Upload, stack: AsyncExitStack) -> Payload:
    match upload.source:
        case bytes() as data if upload.progress is None:
            return BytesPayload(data, content_type=_TYPE)
        case bytes() as data:
            pieces = _read(io.BytesIO(data))
        case Path() as path:
            pieces = _read(stack.enter_context(await asyncio.to_thread(path.open, "rb")))
        case opener:
            pieces = opener()
    return AsyncIterablePayload(_counted(pieces, upload.progress), content_type=_TYPE)


async def _read(file: io.BufferedIOBase) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _CHUNK):
        yield piece


async def _counted(pieces: AsyncIterator[bytes], progress: Callable[[int], None] | None) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece
        if progress is not None:
            progress(len(piece))
