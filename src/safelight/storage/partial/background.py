"""Background work of partial stores: end what a cancelled call has begun, and delete expired uploads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

from safelight import background
from safelight.errors import Error
from safelight.wire import Partial

log = logging.getLogger(__name__)

SWEEP = 300.0
"""Seconds between two searches for expired uploads."""


class Background:
    """Appends that are ending and uploads that are opened, each in a task, which continues if the call is cancelled."""

    def __init__(self) -> None:
        self._ending: set[asyncio.Task[Partial]] = set()

    def end(self, ending: Coroutine[object, object, Partial]) -> asyncio.Task[Partial]:
        """End an append, or open an upload, in a task of its own."""
        task = asyncio.create_task(ending, name="partial upload")
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return task

    @asynccontextmanager
    async def sweeping(self, expire: Callable[[], Awaitable[int]], keep: float) -> AsyncIterator[None]:
        """Delete expired uploads until the context ends, and then wait for the tasks."""
        try:
            async with background.running(lambda: _sweep(expire, min(SWEEP, keep)), "partials"):
                yield
        finally:
            await asyncio.gather(*self._ending, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Partial]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("A change of a partial upload failed: %s", error)


async def _sweep(expire: Callable[[], Awaitable[int]], pause: float) -> None:
    while True:
        try:
            if removed := await expire():
                log.info("Deleted %d expired uploads", removed)
        except Error as error:
            log.warning("Expired uploads could not be deleted: %s", error.detail)
        await asyncio.sleep(pause)
