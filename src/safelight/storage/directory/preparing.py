"""Make and lock the directories of a blob store, and remove files that a killed process has left."""

from __future__ import annotations

import os
from pathlib import Path

from safelight.storage.files import lock, make_directory, sync

LOCK = "lock"
SHARDS = [f"{number:02x}" for number in range(256)]
"""The names of the directories of blobs, and of those of names."""


def prepare(root: Path) -> tuple[Path, int]:
    """Prepare a directory; return its lock and the descriptor that holds it. Raises CONFLICT if in use, OSError."""
    blobs, names, incoming = root / "blobs", root / "names", root / "incoming"
    root.mkdir(parents=True, exist_ok=True)
    held = lock(root / LOCK)
    try:
        for directory in (incoming, blobs, names):
            make_directory(directory)
        for left in incoming.iterdir():
            left.unlink()
        for directory in (blobs, names):
            for digits in SHARDS:
                make_directory(directory / digits)
                sync(directory / digits)
        for directory in (blobs, names, root, root.parent):
            sync(directory)
    except BaseException:
        os.close(held)
        raise
    return root / LOCK, held


def look(root: Path) -> tuple[Path, int]:
    """Open a directory that is only read, as `prepare` does, but make and remove nothing in it.

    A copy of a directory may lack empty files, such as the lock. Raises CONFLICT if a process writes to it, OSError.
    """
    try:
        return root / LOCK, lock(root / LOCK, shared=True)
    except FileNotFoundError:
        return root, os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
