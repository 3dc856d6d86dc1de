"""Hash, write and flush files that are written once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import os
import secrets
import stat
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Self, TypeVar

from safelight.errors import Code, Error
from safelight.files import writeback

T = TypeVar("T")

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The error numbers of a disk, or a share of it, that is full."""

BLOCK = 1 << 20
"""Bytes to hash and write in one call to a thread. A body of at most this size takes a single call."""

_LONGEST_TEXT = 4096

Block = list[bytes | bytearray]
"""Bytes in the chunks in which they arrived, to avoid copying; small ones are joined."""
_LARGE = 16 << 10
"""Bytes from which on a chunk is kept as it is."""


class Incoming:
    """Bytes that are being stored: hashed, and written to a temporary file. Methods run in threads, one at a time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / secrets.token_hex(16)
        self.size = 0
        self.flushed: float | None = None
        """The time of the file (Unix seconds) if it was already flushed by its writer."""
        self._hash = hashlib.sha256()
        self._file: FileIO | None = None
        self._lock = threading.Lock()
        self._dropped = False

    @classmethod
    def written(cls, path: Path, limit: int, hashed: hashlib._Hash | None = None) -> Self:
        """Take a file that another process has written, and hash it.

        With `hashed`, the SHA-256 of the bytes of a flushed file, the file is not read. Raises NOT_FOUND, TOO_LARGE,
        OSError.
        """
        incoming = cls(path.parent)
        incoming.path = path
        try:
            file = FileIO(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "r+")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise Error(Code.NOT_FOUND, "There is no such file to adopt.") from None
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise Error(Code.NOT_FOUND, "There is no such file to adopt.")  # noqa: TRY301 - the file is closed below
            if hashed is not None:
                incoming._hash, incoming.size, incoming.flushed = hashed, status.st_size, status.st_mtime
            else:
                while (block := file.read(BLOCK)) and incoming.size <= limit:
                    incoming.hash([block])
            if incoming.size > limit:
                raise Error(Code.TOO_LARGE, f"A blob has at most {limit} bytes.", limit=limit)  # noqa: TRY301
        except BaseException:
            file.close()
            raise
        incoming._file = file
        return incoming

    @property
    def digest(self) -> str:
        """The SHA-256 of the bytes hashed so far."""
        return self._hash.hexdigest()

    def hash(self, block: Block) -> None:
        """Hash bytes without writing them, since the blob may already exist."""
        for chunk in block:
            self._hash.update(chunk)
            self.size += len(chunk)

    def write(self, block: Block) -> None:
        """Write bytes to the temporary file."""
        with self._lock:
            file = self._opened()
            written = 0
            for chunk in block:
                rest = memoryview(chunk)
                written += len(rest)
                while rest:
                    rest = rest[file.write(rest) :]
            if written >= writeback.LEAST:
                writeback.start(file.fileno())

    def flush(self, moment: int) -> None:
        """Flush the file to disk. Set its time to `moment` (ns), since the kernel's file times are coarse."""
        with self._lock:
            file = self._opened()
            os.utime(file.fileno(), ns=(moment, moment))
            os.fsync(file.fileno())
            file.close()

    def drop(self, *, keep: bool = False) -> None:
        """Close the temporary file, and remove it unless it was renamed or `keep` is set."""
        with self._lock:
            self._dropped = True
            if self._file is not None:
                with suppress(OSError):
                    self._file.close()
                if not keep:
                    self.path.unlink(missing_ok=True)

    def _opened(self) -> FileIO:
        if self._dropped:
            raise ValueError("dropped")
        if self._file is None:
            self._file = self.path.open("xb", buffering=0)
        return self._file


def add(block: Block, chunk: bytes) -> None:
    """Add a chunk to a block."""
    if len(chunk) >= _LARGE:
        block.append(chunk)
    elif block and isinstance(block[-1], bytearray):
        block[-1] += chunk
    else:
        block.append(bytearray(chunk))


async def blocks(chunks: AsyncIterable[bytes], limit: int | None) -> AsyncIterator[Block]:
    """Gather chunks into blocks of at least `BLOCK` bytes, except for the last. Raises TOO_LARGE past `limit` bytes."""
    total = size = 0
    block: Block = []
    async for chunk in chunks:
        total += len(chunk)
        size += len(chunk)
        if limit is not None and total > limit:
            raise Error(Code.TOO_LARGE, f"A blob has at most {limit} bytes.", limit=limit)
        add(block, chunk)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if size:
        yield block


IN_USE = "is in use by another process; give this one its own --data."


def lock(path: Path, *, shared: bool = False) -> int:
    """Lock a file until the returned descriptor is closed. Raises CONFLICT if another process has locked it.

    A `shared` lock is for readers: it makes no file, and only keeps others from locking the file for themselves.
    """
    access = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        detail = f"{path.parent} {IN_USE}"
        raise Error(Code.CONFLICT, detail) from None
    except OSError as error:
        # A guest that runs a single process may lack locks, and needs none.
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            os.close(descriptor)
            raise
    return descriptor


def check_place(path: Path, opened: int) -> None:
    """Raise UNAVAILABLE if a path does not lead to what was opened there any more: its disk may be unmounted."""
    try:
        same = os.path.samestat(path.stat(), os.fstat(opened))
    except (FileNotFoundError, NotADirectoryError):
        same = False
    if not same:
        detail = f"{path.parent} is not the directory that storage has opened: mount its disk again, or move it back."
        raise Error(Code.UNAVAILABLE, detail, retry_after=5)


def drop_cached(file: FileIO) -> None:
    """Have the kernel forget what it holds of a file that is flushed, so that the disk itself is read next."""
    with suppress(AttributeError, OSError):  # not on every platform, and not of every file system
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync(path: Path) -> None:
    """Flush a file or a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush directories has nothing to flush
            raise
    finally:
        os.close(descriptor)


def replace_durably(path: Path, data: bytes) -> None:
    """Write a small file, or replace it: after a power cut it has the old content or the new one."""
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    sync(path.parent)


def read_plainly(path: Path) -> FileIO:
    """Open a regular file for reading. Refuse links and special files, since the directory is untrusted.

    Raises FileNotFoundError, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return FileIO(descriptor)
    os.close(descriptor)
    raise OSError(errno.EINVAL, f"{path.name} is not a file")


def make_directory(path: Path) -> None:
    """Make a directory unless it exists. Raises OSError, also if it is a link."""
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path.name} is a link")


class TextFile:
    """A small file whose text is written durably and atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        """Return whether the file exists."""
        return self._path.exists()

    def read_text(self) -> str:
        """Return its text."""
        return self._path.read_text()

    def write_text(self, data: str, /) -> int:
        """Replace its text."""
        replace_durably(self._path, data.encode())
        return len(data)

    def read(self) -> str:
        """Return the text without surrounding whitespace, or "" if there is no file."""
        try:
            with read_plainly(self._path) as file:
                return file.read(_LONGEST_TEXT).decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def create(self, data: str) -> None:
        """Write the text for the first time; no other process uses the directory."""
        self.write_text(data)


def older(directory: Path, before: float) -> list[str]:
    """Return the names of the files in a directory that are older than a time; one that is missing has none."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if _mtime(entry) < before]
    except FileNotFoundError:
        return []


def _mtime(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return math.inf  # removed meanwhile


def guarded(function: Callable[..., T], *arguments: object) -> T:
    """Call a function, and translate errors of the disk to STORAGE_FULL or UNAVAILABLE."""
    try:
        return function(*arguments)
    except OSError as error:
        if error.errno in FULL:
            raise full() from error
        raise Error(Code.UNAVAILABLE, f"The storage directory failed: {error.strerror}.") from error


def full() -> Error:
    """Return the error of a disk that is full."""
    return Error(Code.STORAGE_FULL, "The disk of storage is full. Make room on it, or start a garbage collection.")
