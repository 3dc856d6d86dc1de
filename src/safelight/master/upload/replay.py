"""A stream that can be read again from its start, as long as it is short: for an upload whose receiver dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

_TOTAL = 64 << 20
"""Bytes that are kept for all uploads of this process; beyond them, uploads are not repeated."""


class ReplayBudget:
    """How many bytes are kept."""

    def __init__(self, total: int = _TOTAL) -> None:
        self.left = total

    def take(self, size: int) -> bool:
        """Take room for bytes; return whether there was any."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Replay:
    """Chunks that are kept while they are read, up to a limit."""

    def __init__(self, held: list[bytes], rest: AsyncIterator[bytes], budget: ReplayBudget, *, most: int) -> None:
        """Begin with the chunks that were read already."""
        self._chunks = list(held)
        self._rest = rest
        self._budget = budget
        self._most = most
        self._size = sum(map(len, held))
        self.repeatable = budget.take(self._size)
        self._taken = self._size if self.repeatable else 0
        self._at = 0
        self._ended = False
        self._reading: asyncio.Future[None] | None = None
        self.failure: Exception | None = None
        """What reading the chunks raised."""

    async def read(self) -> AsyncIterator[bytes]:
        """Yield every chunk. While `repeatable`, this may be called again, after an iteration that was broken off."""
        self._at = 0
        while True:
            while self._at < len(self._chunks):
                chunk = self._chunks[self._at]
                if not self.repeatable:
                    self._chunks[self._at] = b""
                self._at += 1
                yield chunk
            if self._ended:
                return
            # What is being read must not be lost when the receiver, and so this iteration, is given up.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.ensure_future(self._read())
            await asyncio.shield(self._reading)

    async def close(self) -> None:
        """Give back the room of what was kept."""
        self._budget.left += self._taken
        self._taken = 0
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            chunk = await anext(self._rest, None)
        except Exception as error:
            self.failure = error
            raise
        if chunk is None:
            self._ended = True
            return
        self._size += len(chunk)
        self._chunks.append(chunk)
        if not self.repeatable:
            return
        if self._size <= self._most and self._budget.take(len(chunk)):
            self._taken += len(chunk)
        else:
            self.repeatable = False
            self._budget.left += self._taken
            self._taken = 0
            self._chunks[: self._at] = [b""] * self._at
