"""Track how much a bucket holds, by listing it from time to time and by counting this instance's changes."""

from __future__ import annotations

import asyncio
import time

from safelight.storage.bucket.objects import Bucket

_VALID = 600.0
"""Seconds before the bucket is listed again, since other instances change it too."""
_SHARE = 50
"""Large buckets are listed less often, so that listing takes at most a 50th of the time."""


class Sizes:
    """The number of blobs and their bytes."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = asyncio.Lock()
        self._count = self._size = 0
        self._until = 0.0

    def add(self, count: int, size: int) -> None:
        """Count blobs that this instance has stored or (negative) removed."""
        self._count += count
        self._size += size

    async def total(self) -> tuple[int, int]:
        """Return the count and the bytes, without the changes of other instances since the last listing."""
        async with self._lock:
            if time.monotonic() >= self._until:
                began, count, size = time.monotonic(), 0, 0
                async for _, found in self._bucket.listing("blobs"):
                    count += 1
                    size += found.size
                # Changes during the listing may or may not be in it; the next listing corrects this.
                self._count, self._size = count, size
                took = time.monotonic() - began
                self._until = time.monotonic() + max(_VALID, _SHARE * took)
        return self._count, self._size
