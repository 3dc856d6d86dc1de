"""Lengthen the backlogs of the ports that QEMU forwards.

QEMU's user network listens with a backlog of 1. If many clients connect at once, the kernel drops their packets and
sends them again after up to a minute. QEMU has no option for it, so this process calls ``listen`` on its sockets.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
import stat
from pathlib import Path

from drumhead.machine.process import LIBC

log = logging.getLogger(__name__)

BACKLOG = 1024
PIDFD_GETFD = 438
"""The system call's number, which is the same on all architectures."""


def raise_backlogs(pid: int) -> None:
    """Set the backlog of every TCP socket on which the process `pid` listens.

    Do nothing if the kernel does not allow it (in some containers).
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:  # it has just ended
        return
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            _raise_backlog(process, int(entry.name))
    except OSError as error:
        log.info("the process %d keeps its short backlogs: %s", pid, error.strerror)
    finally:
        os.close(process)


def _raise_backlog(process: int, number: int) -> None:
    copy = LIBC.syscall(PIDFD_GETFD, process, number, 0)
    if copy < 0:
        if ctypes.get_errno() == errno.EBADF:  # it was closed in the meantime
            return
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if not stat.S_ISSOCK(os.fstat(copy).st_mode):
        os.close(copy)
        return
    with socket.socket(fileno=copy) as opened:
        is_tcp = opened.family in {socket.AF_INET, socket.AF_INET6} and opened.type == socket.SOCK_STREAM
        if is_tcp and opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            opened.listen(BACKLOG)
