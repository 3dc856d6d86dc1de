"""Check the bytes of a photo and stream them to storage."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from safelight import tracing
from safelight.access.shares import no_room
from safelight.client.availability.retrying import Breaker, retrying
from safelight.client.shared import SharedBlobs
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.master.metrics import Metrics
from safelight.master.upload.copies import Copies
from safelight.master.upload.replay import ReplayBudget
from safelight.untrusted import photos
from safelight.wire import Blob, StoredBlob

_SMALL = 512 * 1024
"""Bytes up to which a photo is gathered and sent at once, which is fastest and can be retried; others are streamed."""
_RETRY_FOR = 15.0


class StoredPhoto(msgspec.Struct, frozen=True, kw_only=True):
    """A stored photo."""

    blob: Blob
    media_type: str
    new: bool
    """Whether storage did not have these bytes."""


class Ingest:
    """Stores photos and refuses other files."""

    def __init__(
        self,
        storage: StorageClient,
        metrics: Metrics,
        *,
        limit: int,
        budget: ReplayBudget | None = None,
        shared: SharedBlobs | None = None,
    ) -> None:
        """Take photos of at most `limit` bytes. Small ones go to storage by file, if there is a `shared` directory."""
        self._storage = storage
        self._shared = shared
        self._metrics = metrics
        self._limit = limit
        self._budget = budget or ReplayBudget()
        self._breaker = Breaker()

    async def store(self, chunks: AsyncIterator[bytes], *, room: int | None = None) -> StoredPhoto:
        """Store a photo. Nothing is sent to storage before the first bytes show that it is one.

        Its tenant may keep `room` more bytes. Raises NOT_AN_IMAGE, UNSUPPORTED_FORMAT, TOO_LARGE, TOO_MANY_REQUESTS,
        and the errors of `chunks` and of storage; storage then keeps nothing.
        """
        bounded = self._bounded(chunks, room)
        held: list[bytes] = []
        size = 0
        kind: str | None = None
        whole = True
        async for chunk in bounded:
            held.append(chunk)
            size += len(chunk)
            if kind is None and size >= photos.LOOKED_AT:
                kind = photos.media_type(_start(held))
            if size > _SMALL:
                whole = False
                break
        kind = kind or photos.media_type(_start(held))
        with tracing.span("store original"):
            stored = await (self._send(b"".join(held)) if whole else self._stream(held, bounded))
        self._metrics.bytes.inc(stored.size)
        blob = Blob(digest=stored.digest, size=stored.size)
        return StoredPhoto(blob=blob, media_type=kind, new=stored.new)

    async def _bounded(self, chunks: AsyncIterator[bytes], room: int | None) -> AsyncIterator[bytes]:
        size = 0
        most = self._limit if room is None else min(room, self._limit)
        async for chunk in chunks:
            size += len(chunk)
            if size > most:
                raise too_large(self._limit) if most == self._limit else no_room(most)
            yield chunk

    async def _send(self, data: bytes) -> StoredBlob:
        if self._shared is not None and (stored := await self._shared.put(data)) is not None:
            return stored
        sent = retrying(lambda: self._storage.put(data), retry_for=_RETRY_FOR, breaker=self._breaker)
        return await sent  # type: ignore[no-any-return]

    async def _stream(self, held: list[bytes], rest: AsyncIterator[bytes]) -> StoredBlob:
        async with Copies.of(self._storage, held, rest, self._budget) as copies:
            return await copies.stored(_RETRY_FOR, self._breaker)


def too_large(limit: int) -> Error:
    """Return the error of a photo with more than `limit` bytes."""
    return Error(
        Code.TOO_LARGE,
        f"The photo has more than {limit} bytes. Upload a smaller one, or raise --max-photo.",
        limit=limit,
    )


def _start(held: list[bytes]) -> bytes:
    return b"".join(held)[: photos.LOOKED_AT] if len(held) > 1 else (held[0] if held else b"")[: photos.LOOKED_AT]
