"""Track how many bytes fit on the file system of a blob store."""

from __future__ import annotations

import os
import time
from pathlib import Path

from safelight.storage.files import full

_PLENTY = 1 << 30
_LOOK_AGAIN = 0.2
"""While more than `_PLENTY` bytes are free, the file system is asked only every `_LOOK_AGAIN` seconds."""


class Room:
    """The free bytes of a directory's file system, of which `keep_free` are never used. Its methods block."""

    def __init__(self, directory: Path, keep_free: int) -> None:
        self._directory = directory
        self._keep_free = keep_free
        self._looked = 0.0
        self._plenty = 0

    def check(self, size: int) -> None:
        """Raise STORAGE_FULL if `size` bytes do not fit, or if bytes that are already there have used the reserve.

        While much is free, the file system is rarely asked.
        """
        now = time.monotonic()
        self._plenty -= size
        if self._plenty > 0 and now < self._looked + _LOOK_AGAIN:
            return
        free = self._unreserved()
        if free is not None and free < size:
            raise full()
        self._looked, self._plenty = now, 0 if free is None else free - _PLENTY

    def free(self) -> int | None:
        """Return how many bytes fit before `keep_free` is reached, or None if the file system does not tell."""
        free = self._unreserved()
        return None if free is None else max(0, free)

    def total(self) -> int | None:
        """Return the size of the file system, or None if it does not tell."""
        figures = os.statvfs(self._directory)
        return figures.f_blocks * figures.f_frsize or None

    def _unreserved(self) -> int | None:
        """Return how many bytes fit, or (negative) how many of the reserve are used."""
        figures = os.statvfs(self._directory)
        return figures.f_bavail * figures.f_frsize - self._keep_free if figures.f_blocks else None
