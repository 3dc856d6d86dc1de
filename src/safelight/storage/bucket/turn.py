"""Let only one instance at a time collect garbage, and another one take over if it dies.

Two concurrent collections would be safe, see `removal`; they would only do the same work twice.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from safelight import background
from safelight.errors import Code, Error
from safelight.storage.bucket.objects import Bucket

_KEY = "collecting"
_RENEW = 60.0
_STALE = 600.0


@asynccontextmanager
async def turn(bucket: Bucket) -> AsyncIterator[None]:
    """Hold the turn until the context ends. Raises CONFLICT while another instance has it."""
    tag = await bucket.create(_KEY, secrets.token_bytes(16))
    if tag is None and (found := await bucket.find(_KEY)) is not None and found.stored + _STALE < time.time():
        tag = await bucket.replace(_KEY, secrets.token_bytes(16), found.tag)
    if tag is None:
        raise Error(Code.CONFLICT, "Another instance is collecting garbage. Try again later.", busy=True)
    try:
        async with background.running(lambda: _renew(bucket, tag), "turn"):
            yield
    finally:
        with suppress(Error):
            await bucket.delete(_KEY)


async def _renew(bucket: Bucket, tag: str | None) -> None:
    while tag is not None:
        await asyncio.sleep(_RENEW)
        with suppress(Error):
            tag = await bucket.replace(_KEY, secrets.token_bytes(16), tag)
