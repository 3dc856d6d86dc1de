"""Background work of a service, which runs as long as the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds before failed work starts again."""


@asynccontextmanager
async def running(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> AsyncIterator[None]:
    """Run background work until the context ends; see `again`."""
    task = asyncio.create_task(again(work, name), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def again(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """Run `work` until it returns. After an unexpected error, log it and start again.

    A lack of memory counts as such an error: it can happen anywhere, and a service without its background work would
    still look healthy.
    """
    pause = 0.0
    while True:
        try:
            await asyncio.sleep(pause)
            await work()
        except Exception:
            pause = _PAUSE
            with suppress(MemoryError):
                log.exception("Unexpected error in the background work %r, which starts again", name)
        else:
            return
