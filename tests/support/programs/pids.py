"""Find and await processes by their process ids."""

import asyncio
import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    while True:
        try:
            threads = Path(f"/proc/{pid}/task").iterdir()
            return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):  # a thread has ended, and its children belong to another now
            if not Path(f"/proc/{pid}").exists():
                raise


def is_stopped(pid: int) -> bool:
    """Return whether SIGSTOP has stopped all threads of a process; one in a flush stops after it."""
    states = [(each / "stat").read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


async def gone(pid: int, timeout: float = 60.0) -> None:
    """Wait until a process has ended, whether it is our child or not."""
    try:
        file = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        async with asyncio.timeout(timeout):
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(file, ended.set)
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(file)
        os.close(file)
