"""Work that goes on beside requests for as long as a service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds before work that has failed begins anew."""


@asynccontextmanager
async def running(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> AsyncIterator[None]:
    """Do endless work for as long as the context lasts; see `again`."""
    task = asyncio.create_task(again(work, name), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def again(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """Do work until it ends. After an error that it did not expect, which is logged, it starts again.

    No memory is such an error: it can come anywhere, and a service whose work had ended with it would seem to be well.
    """
    pause = 0.0
    while True:
        try:
            await asyncio.sleep(pause)
            await work()
        except Exception:
            pause = _PAUSE
            with suppress(MemoryError):
                log.exception("Unexpected error in the work %r, which begins anew", name)
        else:
            return
