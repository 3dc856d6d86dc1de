"""How much a bucket holds: counted by listing it, now and then, and kept up by what this instance does."""

from __future__ import annotations

import asyncio
import time

from safelight.storage.bucket.objects import Bucket

_VALID = 600.0
"""Seconds after which the bucket is listed again, since other instances change it too."""
_SHARE = 50
"""A bucket that takes long to list is listed less often: at most a 50th of the time goes into that."""


class Sizes:
    """The number of blobs and their bytes."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = asyncio.Lock()
        self._count = self._size = 0
        self._until = 0.0

    def add(self, count: int, size: int) -> None:
        """Note what this instance has stored or removed (negative)."""
        self._count += count
        self._size += size

    async def total(self) -> tuple[int, int]:
        """Return the count and the bytes, exact but for what other instances did since the last listing."""
        async with self._lock:
            if time.monotonic() >= self._until:
                began, count, size = time.monotonic(), 0, 0
                async for _, found in self._bucket.listing("blobs"):
                    count += 1
                    size += found.size
                # What changed during the listing may be in it or not; the next one will tell.
                self._count, self._size = count, size
                took = time.monotonic() - began
                self._until = time.monotonic() + max(_VALID, _SHARE * took)
        return self._count, self._size
