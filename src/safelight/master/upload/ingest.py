"""One photo's bytes on their way to storage."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from safelight import pictures
from safelight.client.base import retrying
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.master.metrics import Metrics
from safelight.wire import Blob

_SMALL = 512 * 1024
"""Up to so many bytes are gathered and sent in one piece, which costs least and can be sent again; more is streamed."""
_RETRY_FOR = 15.0


class StoredPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """A photo that is safe in storage."""

    blob: Blob
    media_type: str


class Ingest:
    """Lets pictures through to storage and nothing else."""

    def __init__(self, storage: StorageClient, metrics: Metrics, *, limit: int) -> None:
        self._storage = storage
        self._metrics = metrics
        self._limit = limit

    async def store(self, pieces: AsyncIterator[bytes]) -> StoredPhoto:
        """Pass the bytes on, none before the first of them say that they are a picture.

        Raises NOT_AN_IMAGE, UNSUPPORTED_FORMAT, TOO_LARGE, what `pieces` raises, and what storage answers; storage
        then keeps nothing.
        """
        bounded = self._bounded(pieces)
        held: list[bytes] = []
        size = 0
        kind: str | None = None
        whole = True
        async for piece in bounded:
            held.append(piece)
            size += len(piece)
            if kind is None and size >= pictures.LOOKED_AT:
                kind = pictures.media_type(_start(held))
            if size > _SMALL:
                whole = False
                break
        kind = kind or pictures.media_type(_start(held))
        blob = await (self._send(b"".join(held)) if whole else self._stream(held, bounded))
        self._metrics.bytes.inc(blob.size)
        return StoredPhoto(blob=blob, media_type=kind)

    async def _bounded(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size > self._limit:
                raise too_large(self._limit)
            yield piece

    async def _send(self, data: bytes) -> Blob:
        return await retrying(lambda: self._storage.put(data), retry_for=_RETRY_FOR)  # type: ignore[no-any-return]

    async def _stream(self, held: list[bytes], rest: AsyncIterator[bytes]) -> Blob:
        failure: Error | None = None

        async def body() -> AsyncIterator[bytes]:
            nonlocal failure
            try:
                while held:
                    yield held.pop(0)
                async for piece in rest:
                    yield piece
            except Error as error:
                failure = error
                raise

        try:
            return await self._storage.put(body())
        except Error:
            # The body's own failure reaches us as a broken connection to storage; the client is told the cause.
            if failure is not None:
                raise failure from None
            raise


def too_large(limit: int) -> Error:
    """The refusal of a photo with more than `limit` bytes."""
    return Error(
        Code.TOO_LARGE,
        f"The photo has more than {limit} bytes; send a smaller one, or raise --max-photo.",
        limit=limit,
    )


def _start(held: list[bytes]) -> bytes:
    return b"".join(held)[: pictures.LOOKED_AT] if len(held) > 1 else (held[0] if held else b"")[: pictures.LOOKED_AT]
