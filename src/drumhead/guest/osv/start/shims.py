"""What OSv lacks or does otherwise, and Python programs meet: mended here, or taken away where nothing mends it.

Each repair is tried first: on a kernel that has learnt it, nothing is changed.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import math
import os
import socket
import time
from typing import SupportsIndex


def mend(hostname: str) -> None:
    """Make this process one that ordinary programs run in."""
    _mend_sleep()
    _mend_socketpair()
    _mend_blocking()
    _take_away("fork", "forkpty")
    _take_away_attributes()
    if hostname:
        socket.gethostname = lambda: hostname


def _mend_sleep() -> None:
    """``time.sleep`` waits for a point of the clock, which OSv cannot; a lock that nobody opens waits for a while."""
    try:
        time.sleep(1e-6)
    except OSError:
        pass
    else:
        return

    def sleep(seconds: float | SupportsIndex, /) -> None:
        seconds = float(seconds)
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        if math.isnan(seconds):
            raise ValueError("Invalid value NaN (not a number)")
        lock = _thread.allocate_lock()
        lock.acquire()
        if seconds > _thread.TIMEOUT_MAX:
            raise OverflowError("timestamp too large to convert to C PyTime_t")
        # A timeout of zero would not let others run.
        lock.acquire(timeout=max(seconds, 1e-6))

    time.sleep = sleep


def _mend_socketpair() -> None:
    """OSv's pairs have no address, which Python asks for. Two ends of a TCP connection on loopback serve."""
    try:
        for end in socket.socketpair():
            end.close()
    except OSError:
        socket.socketpair = _tcp_pair


def _tcp_pair(
    family: int | None = None,  # noqa: ARG001 - it is always TCP
    type: int = socket.SOCK_STREAM,
    proto: int = 0,
) -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, whatever the family: ``AF_UNIX`` is what asyncio asks for by default."""
    if type != socket.SOCK_STREAM or proto:
        raise ValueError("OSv has pairs of streams only")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = socket.socket()
        try:
            one.connect(listener.getsockname())
            other, address = listener.accept()
            while address != one.getsockname():  # somebody else was quicker to connect
                other.close()
                other, address = listener.accept()
        except BaseException:
            one.close()
            raise
    for end in (one, other):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def _mend_blocking() -> None:
    """Python uses an ioctl that OSv's pipes do not have, and after which fcntl still says what was before."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        if not os.get_blocking(reading):
            return
    except OSError:
        pass
    finally:
        os.close(reading)
        os.close(writing)

    def set_blocking(fd: int, blocking: bool, /) -> None:  # noqa: FBT001 - as it is called
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        flags = flags & ~os.O_NONBLOCK if blocking else flags | os.O_NONBLOCK
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)

    os.set_blocking = set_blocking
    plain = socket.socket.setblocking

    def setblocking(self: socket.socket, flag: bool) -> None:  # noqa: FBT001 - as it is called
        plain(self, flag)
        set_blocking(self.fileno(), bool(flag))

    socket.socket.setblocking = setblocking  # type: ignore[method-assign,assignment]


def _take_away_attributes() -> None:
    """Files have no extended attributes, and shutil expects another error where there are none."""
    try:
        os.listxattr("/")
    except OSError as error:
        if error.errno == errno.ENOSYS:
            _take_away("listxattr", "getxattr", "setxattr", "removexattr")


def _take_away(*names: str) -> None:
    """Programs that ask whether there is such a function (``hasattr(os, "fork")``) are told what is true."""
    for name in names:
        if hasattr(os, name):
            delattr(os, name)
