"""Wait for the end of a process, and poll conditions that have no event."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]], *, timeout: float = 60.0) -> None:
    """Poll until a condition without an event is true. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


async def readable(file: int, *, timeout: float = 120.0) -> None:
    """Wait until a descriptor, such as the pidfd of a process that ends, is readable; close it. Raises TimeoutError."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(file, ready.set)
    try:
        async with asyncio.timeout(timeout):
            await ready.wait()
    finally:
        loop.remove_reader(file)
        os.close(file)
