"""Files that are written once, durably: gathered, hashed, flushed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import os
import secrets
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from safelight.errors import Code, Error

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

PIECE = 1 << 20
"""Bytes that one hop to a thread hashes and writes. A body up to this size takes one hop in all."""


class Incoming:
    """Bytes on their way in: hashed, and written to a temporary file. Its methods run in threads, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / secrets.token_hex(16)
        self.size = 0
        self._hash = hashlib.sha256()
        self._file: FileIO | None = None
        self._lock = threading.Lock()
        self._dropped = False

    @property
    def digest(self) -> str:
        """The SHA-256 of what was hashed so far."""
        return self._hash.hexdigest()

    def hash(self, piece: bytes | bytearray) -> None:
        """Take bytes into the digest alone; they may turn out to be known, and then are never written."""
        self._hash.update(piece)
        self.size += len(piece)

    def write(self, piece: bytes | bytearray) -> None:
        """Write bytes to the temporary file."""
        with self._lock:
            file, rest = self._opened(), memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]

    def flush(self, moment: int) -> None:
        """Bring every byte to disk; `moment` (ns) becomes the file's time: the system's own is coarse."""
        with self._lock:
            file = self._opened()
            os.utime(file.fileno(), ns=(moment, moment))
            os.fsync(file.fileno())
            file.close()

    def drop(self) -> None:
        """Remove the temporary file where it still is one."""
        with self._lock:
            self._dropped = True
            if self._file is not None:
                with suppress(OSError):
                    self._file.close()
                self.path.unlink(missing_ok=True)

    def _opened(self) -> FileIO:
        if self._dropped:
            raise ValueError("dropped")
        if self._file is None:
            self._file = self.path.open("xb", buffering=0)
        return self._file


async def pieces(chunks: AsyncIterable[bytes], limit: int | None) -> AsyncIterator[bytearray]:
    """Gather chunks into pieces of at least `PIECE` bytes, the last one excepted. Raises TOO_LARGE past `limit`."""
    total = 0
    piece = bytearray()
    async for chunk in chunks:
        total += len(chunk)
        if limit is not None and total > limit:
            raise Error(Code.TOO_LARGE, f"Storage takes at most {limit} bytes at once.", limit=limit)
        piece += chunk
        if len(piece) >= PIECE:
            yield piece
            piece = bytearray()
    if piece:
        yield piece


def lock(path: Path) -> int:
    """Hold a lock file until the descriptor returned is closed. Raises UNAVAILABLE where another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        detail = f"{path.parent} is in use by another process; give this one its own --data."
        raise Error(Code.UNAVAILABLE, detail) from None
    except OSError as error:
        # A guest with one process in it may have no such locks, and needs none.
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            os.close(descriptor)
            raise
    return descriptor


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush a folder has nothing to flush
            raise
    finally:
        os.close(descriptor)


def touch(path: Path, moment: int) -> None:
    """Give a file a time (ns), durably; its place in its folder is durable then, too."""
    os.utime(path, ns=(moment, moment))
    sync(path)
    sync(path.parent)


def older(folder: Path, before: float) -> list[str]:
    """Return the names of the files in a folder whose time is before one."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _mtime(entry) < before]


def _mtime(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return math.inf  # removed meanwhile


def guarded(function: Callable[..., T], *arguments: object) -> T:
    """Call; a disk's error becomes ours."""
    try:
        return function(*arguments)
    except OSError as error:
        if error.errno in _FULL:
            raise full() from error
        raise Error(Code.UNAVAILABLE, f"The storage directory failed: {error.strerror}.") from error


def full() -> Error:
    """Return the error of a disk without room."""
    return Error(Code.STORAGE_FULL, "The disk of storage is full: make room on it, or let a collection do so.")
