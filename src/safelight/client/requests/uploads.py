"""Make the streamed multipart body of an upload."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp.payload import AsyncIterablePayload, BytesPayload, Payload

from safelight.errors import Error
from safelight.files.opening import opened
from safelight.untrusted import filenames

_CHUNK = 1 << 18
_SMALL = 1 << 20
"""Bytes up to which a photo is read and sent at once, with its length, which is fastest."""
_TYPE = "application/octet-stream"
_ROUNDS = 100
"""Rounds of the event loop in which a cancelled request stops reading."""

EXTRA_WAIT = 60.0
"""Seconds that the answer to an upload may take longer than others: after the last byte was sent, megabytes may still
be in transit to a slow receiver, and must be flushed to its disk.
"""

Source = Path | bytes | Callable[[], AsyncIterator[bytes]]


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A photo to upload. `progress` is called with the number of bytes of each chunk that was sent."""

    source: Source
    filename: str | None = None
    progress: Callable[[int], None] | None = None


def form_fields(recipe: str | Mapping[str, Any] | None, **others: Any) -> dict[str, str]:
    """Return the text fields of an upload: its recipe, by name or as JSON, and whatever else is given and not empty."""
    fields = {name: str(value) for name, value in others.items() if value}
    match recipe:
        case None:
            pass
        case str():
            fields["recipe"] = recipe
        case _:
            fields["recipe"] = msgspec.json.encode(dict(recipe)).decode()
    return fields


@asynccontextmanager
async def multipart(uploads: Sequence[Upload], fields: Mapping[str, str]) -> AsyncIterator[aiohttp.MultipartWriter]:
    """Make a body of text fields and one part `image` for each photo; files stay open as long as the context lasts.

    Raises OSError for a photo that cannot be read, and whatever a function that opens a stream raises.
    """
    writer = aiohttp.MultipartWriter("form-data")
    broken: list[Exception] = []
    async with AsyncExitStack() as stack:
        for name, value in fields.items():
            # A long text is sent in chunks, so that other requests can be sent in between.
            part = writer.append(value if len(value) < _SMALL else io.BytesIO(value.encode()))
            part.set_content_disposition("form-data", name=name)
        for upload in uploads:
            payload = await _payload(upload, stack, broken)
            # UTF-8 without percent-encoding, as browsers and curl send it.
            payload.set_content_disposition("form-data", quote_fields=False, name="image", filename=_filename(upload))
            writer.append_payload(payload)
        try:
            yield writer
        except Error:
            if broken:  # the request has only told of a broken connection
                raise broken[0] from None
            raise


def _filename(upload: Upload) -> str:
    name = upload.filename
    if name is None:
        name = upload.source.name if isinstance(upload.source, Path) else "photo"
    return filenames.clean(name)  # a name that a header can hold; the name of a file may not even be valid text


async def _payload(upload: Upload, stack: AsyncExitStack, broken: list[Exception]) -> Payload:
    match upload.source:
        case bytes() as data if len(data) < _SMALL and upload.progress is None:
            return BytesPayload(data, content_type=_TYPE)
        case bytes() as data:
            chunks = _split(data)
        case Path() as path:
            file = await stack.enter_async_context(opened(lambda: path.open("rb")))
            first = await asyncio.to_thread(file.read, _SMALL)
            if len(first) < _SMALL and upload.progress is None:
                return BytesPayload(first, content_type=_TYPE)
            chunks = _read(file, first)
        case opener if callable(opener):
            chunks = opener()
        case other:
            raise TypeError(f"A photo is a Path, bytes or a function that opens a stream, not {type(other).__name__}.")
    counted = _counted(chunks, upload.progress, broken)
    stack.push_async_callback(_close, chunks)
    stack.push_async_callback(_close, counted)
    return AsyncIterablePayload(counted, content_type=_TYPE)


async def _close(chunks: AsyncIterator[bytes]) -> None:
    """Close a stream that is no longer sent; otherwise it would be closed with errors when the program ends."""
    if not isinstance(chunks, AsyncGenerator):
        return
    for _ in range(_ROUNDS):
        try:
            await chunks.aclose()
            break
        except RuntimeError:  # it is still being read: the cancelled request has not noticed yet
            await asyncio.sleep(0)


async def _read(file: io.BufferedIOBase, first: bytes) -> AsyncIterator[bytes]:
    yield first
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


async def _split(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]


async def _counted(
    chunks: AsyncIterator[bytes], progress: Callable[[int], None] | None, broken: list[Exception]
) -> AsyncIterator[bytes]:
    """Pass chunks on and count them. An error of their source is added to `broken` before it is raised."""
    try:
        async for chunk in chunks:
            yield chunk
            if progress is not None:
                progress(len(chunk))
    except Exception as error:
        broken.append(error)
        raise
