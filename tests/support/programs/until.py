"""Poll conditions that have no event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]], *, timeout: float = 60.0) -> None:
    """Poll until a condition without an event is true. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)
