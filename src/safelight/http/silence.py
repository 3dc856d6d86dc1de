"""Give up bodies whose sender has fallen silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable

from safelight.errors import Code, Error


def idle() -> Error:
    """Return the error for an append to an upload whose sender has sent nothing for too long."""
    return Error(Code.UNAVAILABLE, "Nothing more arrived. Continue with the missing bytes.", idle=True)


async def in_time(chunks: AsyncIterable[bytes], idle_timeout: float) -> AsyncGenerator[bytes]:
    """Pass chunks on. Raises UNAVAILABLE if none arrives for `idle_timeout` seconds."""
    waiting = aiter(chunks)
    try:
        while True:
            async with asyncio.timeout(idle_timeout):
                chunk = await anext(waiting)
            yield chunk
    except StopAsyncIteration:
        return
    except TimeoutError:
        raise idle() from None
