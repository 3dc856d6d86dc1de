"""One of the 256 directories of blobs: its lock, its flushes, and its counts."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from safelight.storage.files import sync


class Shard:
    """The lock of one directory of blobs and of the directory of names with the same digits.

    `count` and `size` say how many blobs and bytes the directory holds; `count` is None until it is needed.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.unflushed: dict[Path, object] = {}
        """Files with a new name or time that is not flushed yet, each with a mark of that change."""
        self.count: int | None = None
        self.size = 0
        self._descriptor: int | None = None

    def descriptor(self, path: Path) -> int:
        """Return a descriptor for flushing the directory of blobs, which stays open."""
        if self._descriptor is None:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor

    def flush(self, path: Path, directory: int | None = None, *, content: bool = True) -> None:
        """Flush a marked file's directory, and with `content` also the file itself, without holding the lock."""
        mark = self.unflushed.get(path)
        if mark is None:
            return
        if content:
            sync(path)
        if directory is None:
            sync(path.parent)
        else:
            os.fsync(directory)
        with self.lock:
            if self.unflushed.get(path) is mark:  # it was not changed again meanwhile
                del self.unflushed[path]

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def add(self, count: int, size: int) -> None:
        """Count blobs that were added or (negative) removed."""
        if self.count is not None:
            self.count += count
            self.size += size
