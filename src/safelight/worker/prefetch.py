"""Limit how much a worker takes on: slots that process photos, and a few inputs that are fetched ahead for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safelight.wire import MOST_LEASES

_AHEAD_SECONDS = 0.25
"""Seconds of work to fetch ahead: enough to hide a round trip, and little enough to leave other workers their share."""
_AHEAD_MOST = 32
_WEIGHT = 0.1


class Prefetch:
    """Counts the slots in use and the inputs ahead of them.

    Inputs ahead are limited in number, by the time that photos take on this worker, and in bytes. An input that is
    larger than `ahead_bytes` is admitted if no other is ahead.
    """

    def __init__(self, slots: int, ahead_bytes: int) -> None:
        self.slots = slots
        self.busy = 0
        self._free = asyncio.Semaphore(slots)
        self._photos = 0
        """The inputs that have room, or wait for it."""
        self._bytes = 0
        self._most = ahead_bytes
        self._turn = asyncio.Lock()
        self._shrunk = asyncio.Event()
        self._seconds: float | None = None

    @property
    def ahead(self) -> int:
        """The number of inputs to fetch ahead of those in the slots."""
        if self._seconds is None:
            return self.slots
        return max(1, min(_AHEAD_MOST, math.ceil(self.slots * _AHEAD_SECONDS / max(self._seconds, 0.001))))

    def wanted(self, held: int) -> int:
        """Return how many leases to request when `held` are held: none until half of the inputs ahead are used up."""
        room = min(MOST_LEASES, self.slots + self.ahead - held)
        return room if room >= max(1, self.ahead // 2) else 0

    def share(self, threads: int) -> int:
        """Return how many of a worker's threads each of its photos may use, whether it is processed or waits."""
        return max(1, threads // max(1, min(self.slots, self.busy + self._photos)))

    def learn(self, seconds: float) -> None:
        """Record how many seconds a photo has taken."""
        self._seconds = seconds if self._seconds is None else self._seconds + _WEIGHT * (seconds - self._seconds)

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Reserve room for an input of `size` bytes, waiting for it, until the context ends."""
        self._photos += 1
        try:
            async with self._turn:  # in order, so that small inputs cannot delay a large one forever
                while self._bytes and self._bytes + size > self._most:
                    self._shrunk.clear()
                    await self._shrunk.wait()
                self._bytes += size
            try:
                yield
            finally:
                self._bytes -= size
                self._shrunk.set()
        finally:
            self._photos -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Occupy a slot, waiting for it, until the context ends."""
        async with self._free:
            self.busy += 1
            try:
                yield
            finally:
                self.busy -= 1
