"""A stream with several readers, for uploads whose receiver dies; they can start at its beginning while it is short."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

from safelight.errors import Code, Error

_TOTAL = 64 << 20
"""Bytes to keep for all uploads of this process, so that they can be sent again from their start."""
_WINDOW = 1 << 20
"""Bytes by which a reader of a longer stream may lag behind the source, which waits for the slowest one."""


class ReplayBudget:
    """The budget of bytes to keep."""

    def __init__(self, total: int = _TOTAL) -> None:
        self.left = total

    def take(self, size: int) -> bool:
        """Reserve room for bytes; return whether there was enough."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Reader:
    """A reader of a stream. The other readers wait for it until its context ends."""

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
    """The chunks of a stream: all are kept while they are few, and later ones until each reader has read them."""

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

        `on_long` is called when the stream turns out to be too long to keep; a reader that starts then still gets all
        of it.
        """
        self._chunks = deque(held)
        self._first = 0
        """The number of the first kept chunk."""
        self._rest = rest
        self._budget = budget
        self._most = most
        self._on_long = on_long
        self._readers: set[Reader] = set()
        self._size = sum(map(len, held))
        """The number of kept bytes."""
        self._taken = self._size if budget.take(self._size) else 0
        self.repeatable = True
        """Whether everything since the start is kept, so that a reader may begin."""
        self._ended = False
        self._reading: asyncio.Future[None] | None = None
        self._released = asyncio.Event()
        self.failure: Exception | None = None
        """The exception that reading the chunks raised."""

    def reader(self) -> Reader:
        """Return a reader that starts from the beginning. Raises UNAVAILABLE if the stream is not `repeatable`."""
        if not self.repeatable:
            sentence = "Storage failed, and the upload is too large to be sent there again from memory. Send it again."
            raise Error(Code.UNAVAILABLE, sentence)
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
        """Give back the reserved room."""
        self._budget.left += self._taken
        self._taken = 0
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _advance(self) -> None:
        """Read another chunk, or wait until the slowest reader has caught up. Raises what reading raised."""
        if self.failure is not None:
            raise self.failure
        if not self.repeatable and self._size > _WINDOW:
            await self._released.wait()
            return
        # The chunk in progress must not be lost when one of the readers is cancelled.
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
        """Drop the chunks that every reader has read."""
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
