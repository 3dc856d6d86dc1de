"""Limit the size of what a machine writes into files of the host, its log, console and status, while it keeps writing.

Trimming punches a hole at the start of the file, so offsets stay valid for QEMU, which appends, and for readers.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from drumhead.machine.process import LIBC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

TRIM_ABOVE = 64 << 20
"""Bytes on disk above which a file is trimmed."""
KEPT_BYTES = 32 << 20
"""Bytes that remain of a trimmed file."""
TRIM_INTERVAL = 30.0
NAMES = ("log", "console", "status")
KEEP_SIZE, PUNCH_HOLE = 1, 2
BLOCK = 4096


def trim_logs(directory: Path) -> None:
    """Trim the logs of the machine in `directory`, which must be running or about to start.

    (Trimming changes the time of the last write, which is used as the time of a machine's end.)
    """
    for name in NAMES:
        path = directory / name
        with suppress(FileNotFoundError):
            if path.stat().st_blocks * 512 > TRIM_ABOVE:
                trim(path, KEPT_BYTES)


def trim(path: Path, kept: int) -> None:
    """Free all but the last `kept` bytes of a file, or the whole file if the file system does not support holes."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(handle).st_size
        end = ctypes.c_int64((size - kept) // BLOCK * BLOCK)
        if end.value > 0 and LIBC.fallocate(handle, PUNCH_HOLE | KEEP_SIZE, ctypes.c_int64(0), end) != 0:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


async def trim_periodically(directories: Callable[[], Iterable[Path]]) -> None:
    """Trim the logs of machines periodically until cancelled. `directories` is called each time."""
    while True:
        for directory in directories():
            await asyncio.to_thread(trim_logs, directory)
        await asyncio.sleep(TRIM_INTERVAL)


@contextmanager
def limiting_logs(directory: Path) -> Iterator[None]:
    """Trim the logs of the machine in `directory` periodically while the context lasts."""
    trimming = asyncio.create_task(trim_periodically(lambda: [directory]))
    try:
        yield
    finally:
        trimming.cancel()
