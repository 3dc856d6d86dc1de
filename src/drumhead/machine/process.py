"""Processes of the host: let them die with this process, wait for them, and kill them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
_STARTED = 19
"""The place of the start (in ticks since the host booted) among the fields from the state on."""


def die_with_parent() -> Callable[[], None]:
    """Return a ``preexec_fn`` that makes the kernel kill the child when its parent ends for any reason.

    Call it from the main thread, because the kernel watches the thread that created the child.
    """
    parent = os.getpid()

    def before_exec() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


async def wait_process(pid: int) -> None:
    """Wait for the end of any process and reap it if it is a child. Return at once if there is no such process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG does not wait


def kill(pid: int) -> None:
    """Send SIGKILL to a process, which may already have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def is_stopped(pid: int) -> bool:
    """Return whether a signal (SIGSTOP, or Ctrl-Z in a debugger) has stopped a process."""
    return _stat(pid)[:1] in (["T"], ["t"])


def age(pid: int) -> float:
    """Return for how many seconds a process has run, however the clock was set meanwhile; 0 if it has ended."""
    found = _stat(pid)
    if not found:
        return 0.0
    since = int(found[_STARTED]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc(5)); none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
