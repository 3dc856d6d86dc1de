"""How much a worker takes on: slots that process, and a small stock of inputs fetched ahead for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_AHEAD_SECONDS = 0.25
"""The stock lasts about so long: enough to hide a round trip, little enough that other workers get their share."""
_AHEAD_MOST = 32
_WEIGHT = 0.1


class Prefetch:
    """Counts slots and the inputs ahead of them.

    The stock is bounded in number (by the time that images take here) and in bytes; one input larger than
    `ahead_bytes` is let in when nothing else is ahead.
    """

    def __init__(self, slots: int, ahead_bytes: int) -> None:
        self.slots = slots
        self.busy = 0
        self._free = asyncio.Semaphore(slots)
        self._bytes = 0
        self._most = ahead_bytes
        self._turn = asyncio.Lock()
        self._shrunk = asyncio.Event()
        self._seconds: float | None = None

    @property
    def ahead(self) -> int:
        """How many inputs to have ahead of those in the slots."""
        if self._seconds is None:
            return self.slots
        return max(1, min(_AHEAD_MOST, math.ceil(self.slots * _AHEAD_SECONDS / max(self._seconds, 0.001))))

    def wanted(self, held: int) -> int:
        """How many leases to ask for when so many are held: none until half of the stock is used up."""
        room = self.slots + self.ahead - held
        return room if room >= max(1, self.ahead // 2) else 0

    def learn(self, seconds: float) -> None:
        """Take into account how long an image took."""
        self._seconds = seconds if self._seconds is None else self._seconds + _WEIGHT * (seconds - self._seconds)

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Hold room in the stock for an input of so many bytes, waiting for it."""
        async with self._turn:  # in order, so that small inputs do not hold up a large one for ever
            while self._bytes and self._bytes + size > self._most:
                self._shrunk.clear()
                await self._shrunk.wait()
            self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size
            self._shrunk.set()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot, waiting for it."""
        async with self._free:
            self.busy += 1
            try:
                yield
            finally:
                self.busy -= 1
