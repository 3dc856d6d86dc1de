"""Scrub: read every blob slowly from time to time, to find damage before somebody needs the blob."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from safelight.errors import Code, Error
from safelight.storage.store import NAME_PREFIX, BlobStore

log = logging.getLogger(__name__)

_EVERY = 86400.0
"""The least number of seconds between the starts of two walks."""
_SETTLE = 60.0
"""Seconds from the start of the service to the first walk."""


class Scrubbed(Protocol):
    """A callback that counts a blob that was read."""

    def __call__(self, size: int, *, damaged: bool) -> None:
        """Take its size, and whether it is damaged."""
        ...


class Scrubber:
    """Walks all blobs and reports damaged ones, which are remade if possible."""

    def __init__(
        self,
        store: BlobStore,
        rate: int,
        scrubbed: Scrubbed,
        make_again: Callable[[set[str]], Awaitable[int]] | None,
    ) -> None:
        """Read `rate` bytes per second at most; 0 reads nothing."""
        self._store = store
        self._rate = rate
        self._scrubbed = scrubbed
        self._make_again = make_again

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Walk repeatedly until the context ends."""
        task = asyncio.create_task(self._run(), name="scrub") if self._rate else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_SETTLE)
        while True:
            began = loop.time()
            try:
                await self.walk()
            except Error as error:
                log.warning("The search for damaged blobs was interrupted: %s", error.detail)
            except Exception:
                log.exception("Unexpected error in the search for damaged blobs")
            await asyncio.sleep(max(_SETTLE, began + _EVERY - loop.time()))

    async def walk(self) -> set[str]:
        """Read every blob once; return the damaged ones."""
        damaged: set[str] = set()
        async for item in self._store.aged(time.time() + _EVERY):
            if not item.startswith(NAME_PREFIX) and await self._is_damaged(item):
                damaged.add(item)
        if damaged:
            made = await self._make_again(damaged) if self._make_again is not None else 0
            sentence = "%d blobs are damaged; %d of them are results that are being remade. Restore the others."
            log.error(sentence, len(damaged), made)
        return damaged

    async def _is_damaged(self, digest: str) -> bool:
        size = 0
        try:
            async with self._store.open(digest, verify=True) as reading:
                size = reading.blob.size
        except Error as error:
            if error.code is not Code.DAMAGED_BLOB:
                if error.code is not Code.NOT_FOUND:  # removed meanwhile
                    log.warning("The blob %s could not be searched for damage: %s", digest, error.detail)
                return False
            self._scrubbed(size, damaged=True)
            log.error("Damage was found. %s", error.detail)  # noqa: TRY400
            return True
        self._scrubbed(size, damaged=False)
        await asyncio.sleep(size / self._rate if self._rate else 0.0)
        return False
