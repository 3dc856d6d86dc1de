"""Send a photo to storage so that it arrives even if an instance of storage dies meanwhile.

A photo is kept in memory while it is short, and can be sent again from its start. Once it turns out to be longer, it is
sent to a second instance as well, from its start, which is still in memory then. The first instance that has stored it
ends the other upload.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from safelight.client.availability.retrying import Breaker, retrying
from safelight.client.storage import StorageClient
from safelight.errors import Error
from safelight.master.upload.replay import Reader, Replay, ReplayBudget
from safelight.wire import StoredBlob

REPEATED = 16 << 20
"""Bytes up to which a photo is kept until it is stored, so that it can be sent again."""


class Copies:
    """The copies of one photo that are being sent."""

    def __init__(
        self, storage: StorageClient, held: list[bytes], rest: AsyncIterator[bytes], budget: ReplayBudget
    ) -> None:
        """Begin with the chunks that were read already."""
        self._storage = storage
        self._replay = Replay(held, rest, budget, most=REPEATED, on_long=self._begin_second)
        self._used: set[str] = set()
        """The instances to which the photo is being sent."""
        self._in_progress: set[asyncio.Task[StoredBlob]] = set()
        self._ended: asyncio.Queue[asyncio.Task[StoredBlob]] = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def of(
        cls, storage: StorageClient, held: list[bytes], rest: AsyncIterator[bytes], budget: ReplayBudget
    ) -> AsyncIterator[Copies]:
        """Give up unfinished copies when the context ends."""
        copies = cls(storage, held, rest, budget)
        try:
            yield copies
        finally:
            for task in copies._in_progress:
                task.cancel()
            await asyncio.gather(*copies._in_progress, return_exceptions=True)
            await copies._replay.close()

    async def stored(self, retry_for: float, breaker: Breaker | None = None) -> StoredBlob:
        """Return storage's answer for the first complete copy. Raises what the body or storage raised."""
        first = self._begin(self._repeat(retry_for, breaker))
        while self._in_progress:
            task = await self._ended.get()
            self._in_progress.discard(task)
            if task.exception() is None:
                return task.result()
        # An error of the body ends the connections to storage; report the cause to the client.
        raise self._replay.failure or first.exception() or AssertionError

    def _begin(self, sending: Coroutine[Any, Any, StoredBlob]) -> asyncio.Task[StoredBlob]:
        task = asyncio.create_task(sending)
        self._in_progress.add(task)
        task.add_done_callback(self._ended.put_nowait)
        return task

    def _begin_second(self) -> None:
        self._begin(self._send(self._replay.reader()))

    async def _repeat(self, retry_for: float, breaker: Breaker | None) -> StoredBlob:
        """Send the photo, and start again after an error as long as it is kept in memory."""

        async def send() -> StoredBlob:
            self._used.clear()
            try:
                return await self._send(self._replay.reader())
            except Error as error:
                if self._replay.failure is not None or not self._replay.repeatable:
                    raise _FinalError(error) from None
                raise

        try:
            return await retrying(send, retry_for=retry_for, breaker=breaker)  # type: ignore[no-any-return]
        except _FinalError as final:
            raise final.error from None

    async def _send(self, reader: Reader) -> StoredBlob:
        """Send the photo to an instance that is not used for it yet."""
        with reader:
            return await self._storage.put(reader.chunks(), apart=self._used)


class _FinalError(Exception):
    """An error after which a photo cannot be sent again."""

    def __init__(self, error: Error) -> None:
        super().__init__(error)
        self.error = error
