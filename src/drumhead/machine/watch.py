"""Follow files that other processes write, with inotify instead of polling.

The library asyncinotify could do this too, but importing it takes 30 ms of processor time, for two system calls.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.process import LIBC

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from pathlib import Path

IN_MODIFY, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x80, 0x100, 0x200
CHUNK = 1 << 16


@contextmanager
def watching(directory: Path) -> Iterator[asyncio.Event]:
    """Yield an event that is set whenever a file in `directory` is written, created or deleted. Raises HOST_TOOL."""
    handle = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if handle < 0:
        raise _no_more("max_user_instances=1024")
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def on_change() -> None:
        os.read(handle, 1 << 16)
        changed.set()

    try:
        if LIBC.inotify_add_watch(handle, os.fsencode(directory), IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE) < 0:
            number = ctypes.get_errno()
            if number == errno.ENOSPC:  # of watches, not of a disk
                raise _no_more("max_user_watches=2097152")
            raise OSError(number, os.strerror(number), str(directory))
        loop.add_reader(handle, on_change)
        yield changed
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _no_more(setting: str) -> DrumheadError:
    """Return the error for a limit of inotify that `setting` raises."""
    message = (
        f"the kernel watches no more files for this user ({errno.errorcode[ctypes.get_errno()]}); end programs that "
        f"watch files, or as root: sysctl fs.inotify.{setting}"
    )
    return DrumheadError(ErrorCode.HOST_TOOL, message)


async def follow(path: Path, *, offset: int = 0, until: Awaitable[object]) -> AsyncIterator[tuple[int, bytes]]:
    """Yield a file's contents from `offset` on and everything appended, until `until` is done and all has been read.

    Each part comes with the offset of its end. Wait for a file that does not exist yet. Read a truncated file from its
    start again.
    """
    ended = asyncio.ensure_future(until)
    try:
        with watching(path.parent) as changed:
            while True:
                last = ended.done()
                changed.clear()
                for end, part in _parts(path, offset):
                    offset = end
                    yield end, part
                if file_size(path) < offset:
                    offset = 0
                    continue
                if last:
                    return
                wake = asyncio.ensure_future(changed.wait())
                await asyncio.wait({wake, ended}, return_when=asyncio.FIRST_COMPLETED)
                wake.cancel()
    finally:
        ended.cancel()
        if ended.done() and not ended.cancelled():
            ended.exception()  # the machine was deleted; asyncio would print a traceback


def read_from(path: Path, offset: int) -> Iterator[bytes]:
    """Yield the bytes of a file from `offset` on, in chunks. A missing file and trimmed parts yield nothing."""
    return (part for _, part in _parts(path, offset))


def _parts(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes of a file as ``read_from`` does, with the offset of the end of each chunk."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with file:
        # The file may be trimmed between two chunks.
        while part := os.pread(file.fileno(), CHUNK, offset := data_offset(path, offset)):
            offset += len(part)
            yield offset, part


def data_offset(path: Path, offset: int) -> int:
    """Return `offset`, or the start of the first whole line after the hole at `offset` (``logs.trim``)."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return offset
    with file:
        try:
            start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
        except OSError:  # only a hole or nothing follows
            return offset
        if start == offset:
            return offset
        file.seek(start)
        return start + len(file.readline(CHUNK))


def file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def tail_offset(path: Path, lines: int) -> int:
    """Return the offset of the last `lines` lines of a file."""
    if not path.exists():
        return 0
    at, start = path.stat().st_size, data_offset(path, 0)
    tail = b""
    with path.open("rb") as file:
        while at > start and tail.count(b"\n") <= lines:
            step = min(CHUNK, at - start)
            at -= step
            file.seek(at)
            tail = file.read(step) + tail
    # A line ends at a line feed only: a program may redraw its progress with carriage returns.
    kept = BytesIO(tail).readlines()[-lines:] if lines else []
    return at + len(tail) - sum(map(len, kept))
