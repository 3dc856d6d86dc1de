"""Pass bytes to an upload that reads them, with a small buffer, and end the upload cleanly if they break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safelight.storage.bucket.objects import Bucket


class _BrokenOffError(Exception):
    """Raised to make an upload remove its parts, which a cancellation would leave in the bucket."""


class Spool:
    """A pipe with a buffer of a few blocks."""

    def __init__(self) -> None:
        self._blocks: asyncio.Queue[bytes | bytearray | None] = asyncio.Queue(maxsize=2)
        self._broken = asyncio.Event()
        self._upload: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def uploading(cls, bucket: Bucket, key: str) -> AsyncIterator[Spool]:
        """Upload the bytes that are written within the context. Leaving it waits for the upload, and raises its error.

        If the context ends with an error or is cancelled, nothing remains in the bucket.
        """
        spool = cls()
        spool._upload = asyncio.create_task(bucket.upload(key, spool._read()), name="upload to the bucket")
        try:
            yield spool
            await spool._put(None)
            await asyncio.shield(spool._upload)
        except BaseException:
            spool._broken.set()
            await asyncio.shield(asyncio.wait([spool._upload]))
            spool._upload.exception()
            raise

    async def write(self, block: bytes | bytearray) -> None:
        """Pass on a block. Raises what the upload raised, if it has ended."""
        if block:
            await self._put(block)

    async def _put(self, block: bytes | bytearray | None) -> None:
        assert self._upload is not None
        putting = asyncio.ensure_future(self._blocks.put(block))
        try:
            await asyncio.wait([putting, self._upload], return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
        if self._upload.done():
            self._upload.result()

    async def _read(self) -> AsyncIterator[bytes | bytearray]:
        broken = asyncio.ensure_future(self._broken.wait())
        try:
            while True:
                getting = asyncio.ensure_future(self._blocks.get())
                try:
                    await asyncio.wait([getting, broken], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    getting.cancel()
                if self._broken.is_set():
                    raise _BrokenOffError
                if (block := getting.result()) is None:
                    return
                yield block
        finally:
            broken.cancel()
