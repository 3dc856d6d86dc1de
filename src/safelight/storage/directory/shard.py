"""One of the 256 directories of blobs: its lock, its flushes, and what it holds."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from safelight.storage.files import sync


class Shard:
    """The lock of one directory of blobs and of the directory of names with the same digits.

    `count` and `size` say how many blobs and bytes the directory of blobs holds; `count` is None until it is asked for.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.unflushed: dict[Path, object] = {}
        """Files that were renamed or set and are not flushed yet, each with a mark of that change."""
        self.count: int | None = None
        self.size = 0
        self._descriptor: int | None = None

    def descriptor(self, path: Path) -> int:
        """Return a descriptor of the directory of blobs, which is used to flush it and stays open."""
        if self._descriptor is None:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor

    def flush(self, path: Path, directory: int | None = None, *, content: bool = True) -> None:
        """Flush a file that is marked, and its directory, without holding the lock. `content`: the file itself too."""
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
            if self.unflushed.get(path) is mark:  # nobody has changed it again meanwhile
                del self.unflushed[path]

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def add(self, count: int, size: int) -> None:
        """Count blobs that came (or, negative, went)."""
        if self.count is not None:
            self.count += count
            self.size += size
