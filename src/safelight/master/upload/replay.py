"""A stream with several readers, who may begin at its start as long as it is short: for uploads whose receiver dies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

_TOTAL = 64 << 20
"""Bytes that are kept for all uploads of this process, so that they can be sent again from their start."""
_WINDOW = 1 << 20
"""Bytes that one reader of a longer stream may be behind the source, which waits for the slowest one."""


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


class Reader:
    """One of those who read a stream. The others wait for it as long as its context lasts."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.at = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield every chunk, once."""
        while (chunk := await self._replay.next(self)) is not None:
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._replay.leave(self)


class Replay:
    """Chunks that are all kept while they are few, and after that until each reader has had them."""

    def __init__(
        self,
        held: list[bytes],
        rest: AsyncIterator[bytes],
        budget: ReplayBudget,
        *,
        most: int,
        on_long: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with the chunks that were read already.

        `on_long` is called when the stream turns out too long to be kept; who begins to read then still gets it whole.
        """
        self._chunks = deque(held)
        self._first = 0
        """The number of the first chunk that is kept."""
        self._rest = rest
        self._budget = budget
        self._most = most
        self._on_long = on_long
        self._readers: set[Reader] = set()
        self._size = sum(map(len, held))
        """Bytes that are kept."""
        self._taken = self._size if budget.take(self._size) else 0
        self.repeatable = True
        """Whether everything since the start is kept, so that a reader may begin."""
        self._ended = False
        self._reading: asyncio.Future[None] | None = None
        self._released = asyncio.Event()
        self.failure: Exception | None = None
        """What reading the chunks raised."""

    def reader(self) -> Reader:
        """Begin to read at the start, while the stream is `repeatable`."""
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    async def next(self, reader: Reader) -> bytes | None:
        """Return the next chunk of a reader; None at the end."""
        while reader.at == self._first + len(self._chunks):
            if self._ended:
                return None
            await self._advance()
        chunk = self._chunks[reader.at - self._first]
        reader.at += 1
        self._release()
        return chunk

    def leave(self, reader: Reader) -> None:
        """Stop waiting for a reader."""
        self._readers.discard(reader)
        self._release()

    async def close(self) -> None:
        """Give back the room of what was kept."""
        self._budget.left += self._taken
        self._taken = 0
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _advance(self) -> None:
        """Read another chunk, or wait until the slowest reader has come closer. Raises what reading has raised."""
        if self.failure is not None:
            raise self.failure
        if not self.repeatable and self._size > _WINDOW:
            await self._released.wait()
            return
        # What is being read must not be lost when one of the readers is given up.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read())
        await asyncio.shield(self._reading)

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
        if self._size <= self._most and self._taken == self._size - len(chunk) and self._budget.take(len(chunk)):
            self._taken += len(chunk)
        else:
            self._on_long()
            self.repeatable = False
            self._release()

    def _release(self) -> None:
        """Forget the chunks that every reader has had."""
        if self.repeatable or not self._readers:
            return
        slowest = min(reader.at for reader in self._readers)
        while self._first < slowest:
            size = len(self._chunks.popleft())
            self._first += 1
            self._size -= size
            given = min(size, self._taken)
            self._taken -= given
            self._budget.left += given
        self._released.set()
        self._released = asyncio.Event()
