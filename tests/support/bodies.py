"""Make bodies that arrive in chunks, and bodies that break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


async def stream(*chunks: bytes, gate: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """Yield chunks; with a gate, wait for it before the last one."""
    for number, chunk in enumerate(chunks):
        if gate is not None and number == len(chunks) - 1:
            await gate.wait()
        yield chunk


async def broken(*chunks: bytes) -> AsyncIterator[bytes]:
    """Yield chunks, then break off."""
    for chunk in chunks:
        yield chunk
    raise ConnectionResetError("broken off")
