"""Track how much a bucket holds, by listing it from time to time and by counting this instance's changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safelight.storage.bucket.objects import Bucket

_VALID = 600.0
"""Seconds before the bucket is listed again, since other instances change it too."""
_SHARE = 50
"""Large buckets are listed less often, so that listing takes at most a 50th of the time."""
_PATIENCE = 1.0
"""Seconds to wait for a listing if there are figures of an earlier one."""


class Sizes:
    """The number of blobs and their bytes."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._listing: asyncio.Task[None] | None = None
        self._count = self._size = 0
        self._until = 0.0
        """When to list again, by the monotonic clock; 0 before the first listing."""

    @asynccontextmanager
    async def listed(self) -> AsyncIterator[None]:
        """End a listing in progress when the context ends."""
        try:
            yield
        finally:
            if self._listing is not None:
                self._listing.cancel()
                await asyncio.gather(self._listing, return_exceptions=True)

    def add(self, count: int, size: int) -> None:
        """Count blobs that this instance has stored or (negative) removed."""
        self._count += count
        self._size += size

    async def total(self) -> tuple[int, int]:
        """Return the count and the bytes, without the changes of other instances since the last listing.

        A listing may take longer than any caller waits, so it continues if the call is cancelled.
        """
        if self._listing is None and time.monotonic() >= self._until:
            self._listing = asyncio.create_task(self._list(), name="sizes of the bucket")
            self._listing.add_done_callback(self._ended)
        if (listing := self._listing) is not None:
            await asyncio.wait([listing], timeout=_PATIENCE if self._until else None)
            if listing.done():
                listing.result()
        return self._count, self._size

    async def _list(self) -> None:
        began, count, size = time.monotonic(), 0, 0
        async for _, found in self._bucket.listing("blobs"):
            count += 1
            size += found.size
        # Changes during the listing may or may not be in it; the next listing corrects this.
        self._count, self._size = count, size
        took = time.monotonic() - began
        self._until = time.monotonic() + max(_VALID, _SHARE * took)

    def _ended(self, listing: asyncio.Task[None]) -> None:
        self._listing = None
        if not listing.cancelled():
            listing.exception()  # the next call lists again
