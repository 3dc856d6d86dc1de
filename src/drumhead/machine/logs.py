"""How much of a machine's log and console is kept: the oldest part is given back to the disk while QEMU writes on.

A hole is punched at the start of the file: offsets stay what they are for QEMU, which appends, and for whoever follows.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from drumhead.machine.process import LIBC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

TRIM_ABOVE = 64 << 20
"""Bytes on the disk above which a file is trimmed …"""
KEPT_BYTES = 32 << 20
"""… to the last so many."""
TRIM_INTERVAL = 30.0
NAMES = ("log", "console")
KEEP_SIZE, PUNCH_HOLE = 1, 2
BLOCK = 4096


def trim_logs(directory: Path) -> None:
    """Trim what the machine in `directory` has written.

    For one that runs or is about to: when one ended is told by when it wrote for the last time.
    """
    for name in NAMES:
        path = directory / name
        with suppress(FileNotFoundError):
            if path.stat().st_blocks * 512 > TRIM_ABOVE:
                trim(path, KEPT_BYTES)


def trim(path: Path, kept: int) -> None:
    """Give back all of a file but its last `kept` bytes; where its file system has no holes, the whole of it."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(handle).st_size
        end = ctypes.c_int64((size - kept) // BLOCK * BLOCK)
        if end.value > 0 and LIBC.fallocate(handle, PUNCH_HOLE | KEEP_SIZE, ctypes.c_int64(0), end) != 0:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


async def trim_periodically(directories: Callable[[], Iterable[Path]]) -> None:
    """Trim the logs of machines now and then, until cancelled; `directories` is asked anew each time."""
    while True:
        for directory in directories():
            await asyncio.to_thread(trim_logs, directory)
        await asyncio.sleep(TRIM_INTERVAL)
