"""Background work of partial stores: end what a cancelled call has begun, and delete expired uploads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from safelight import background
from safelight.errors import Error

log = logging.getLogger(__name__)

T = TypeVar("T")

SWEEP = 300.0
"""Seconds between two searches for expired uploads."""


class Background:
    """Changes that, once begun, continue although their call is cancelled, each in a task."""

    def __init__(self) -> None:
        self._ending: set[asyncio.Task[Any]] = set()

    def end(self, ending: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """End an append, or open, finish, close or delete an upload, in a task of its own."""
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

    def _ended(self, task: asyncio.Task[Any]) -> None:
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
