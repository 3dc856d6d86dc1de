"""A time limit that counts only the time in which this process ran, so that a suspended machine makes no photo slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_TICK = 0.5
_MOST = 2.0
"""The most seconds that one tick counts, however late it comes."""


@asynccontextmanager
async def timeout(limit: float) -> AsyncIterator[None]:
    """Raise TimeoutError, like asyncio's `timeout`, once the process has run for `limit` seconds."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as scope:
        left, last = limit, loop.time()
        handle: asyncio.TimerHandle

        def tick() -> None:
            nonlocal left, last, handle
            now = loop.time()
            left -= min(now - last, _MOST)
            last = now
            if left <= 0:
                scope.reschedule(now)
            else:
                handle = loop.call_later(min(_TICK, left), tick)

        handle = loop.call_later(min(_TICK, left), tick)
        try:
            yield
        finally:
            handle.cancel()
