"""Handle outages, in which a worker cannot work although no photo is to blame, as when storage fails or is full.

The worker hands its leases back, takes no more, and continues when the outage is over.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.worker.decoder import DecoderPool

log = logging.getLogger(__name__)

_PROBE = 32
"""Bytes of a probe. They differ each time, since existing bytes would be neither written nor flushed."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_ROOM = 1 << 20
"""Bytes that must be free, in addition to the size that did not fit."""


class OutageError(Error):
    """An attempt could not be made, and its photo is not to blame."""

    def __init__(self, error: Error, *, size: int = 0) -> None:
        """Take the error that revealed the outage, and the size of the bytes that could not be stored."""
        super().__init__(error.code, error.detail)
        self.size = size


async def works(storage: StorageClient) -> bool:
    """Return whether storage can store, and read from its disk what it has stored."""
    probe = secrets.token_bytes(_PROBE)
    try:
        stored = await storage.put(probe)
        async with storage.open(stored.digest, verify=True) as answer:
            return await answer.read() == probe
    except Error:
        return False


class Outage:
    """Tracks outages. `hand_back` is called at the beginning of each."""

    def __init__(self, storage: StorageClient, decoders: DecoderPool) -> None:
        self._storage = storage
        self._decoders = decoders
        self._error: OutageError | None = None
        self._pause = _FIRST_PAUSE
        self.hand_back: Callable[[], None] = lambda: None

    @property
    def present(self) -> bool:
        """Whether there is an outage now."""
        return self._error is not None

    def begin(self, error: OutageError) -> None:
        """Record that an attempt could not be made."""
        if self._error is None:
            log.warning("No photo can be processed: %s Its leases are handed back until that is over.", error.detail)
            self._error = error
            self.hand_back()
        self._error = error

    def succeeded(self) -> None:
        """Record that an attempt was completed."""
        self._pause = _FIRST_PAUSE

    async def over(self) -> None:
        """Return once there is no outage. The first check comes later after each outage, until an attempt succeeds."""
        if self._error is None:
            return
        while True:
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            if await self._is_over(self._error):
                break
        log.info("Photos can be processed again")
        self._error = None

    async def _is_over(self, error: OutageError) -> bool:
        if not await works(self._storage) or not await self._decoders.ready():
            return False
        if error.code is not Code.STORAGE_FULL:
            return True
        try:
            free = (await self._storage.info()).free
        except Error:
            return False
        return free is None or free >= error.size + _ROOM
