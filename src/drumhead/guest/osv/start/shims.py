"""Shims for functions that OSv lacks or that behave differently from Linux. Each replaces or removes a function.

Each shim first tries the original function, and changes nothing on a kernel where it works.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import fcntl
import math
import os
import socket
import time
from typing import SupportsIndex


def install(hostname: str) -> None:
    """Prepare this process for ordinary programs."""
    _replace_sleep()
    _replace_socketpair()
    _replace_set_blocking()
    _set_inheritance_with_fcntl()
    _end_input()
    _remove("fork", "forkpty")
    _remove_attribute_functions()
    _tell_about_ipv6()
    if hostname:
        _set_hostname(hostname)


def _set_hostname(hostname: str) -> None:
    system = list(os.uname())
    system[1] = hostname
    socket.gethostname = lambda: hostname
    os.uname = lambda: os.uname_result(system)


def _replace_sleep() -> None:
    """Replace ``time.sleep`` with a lock with a timeout, because OSv does not support waiting for an absolute time."""
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
        # A timeout of zero would not let other threads run.
        lock.acquire(timeout=max(seconds, 1e-6))

    time.sleep = sleep


def _replace_socketpair() -> None:
    """Replace ``socket.socketpair`` with a TCP connection on loopback: OSv's pairs lack the address that Python
    reads.
    """
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
    """Return two connected sockets for any family; asyncio asks for ``AF_UNIX`` by default."""
    if type != socket.SOCK_STREAM or proto:
        raise ValueError("OSv has pairs of streams only")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        one = socket.socket()
        try:
            one.connect(listener.getsockname())
            other, address = listener.accept()
            while address != one.getsockname():  # another client connected first
                other.close()
                other, address = listener.accept()
        except BaseException:
            one.close()
            raise
    for end in (one, other):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def _replace_set_blocking() -> None:
    """Set the blocking mode with fcntl, because Python's ioctl fails on OSv's pipes and is not visible to fcntl."""
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


def _set_inheritance_with_fcntl() -> None:
    """Make Python keep descriptors to this process with fcntl, because OSv refuses its ioctl for files in memory.

    ``tempfile`` needs it for its files. Python gives the ioctl up after the error that pipes have on OSv.
    """
    reading, writing = os.pipe()
    with contextlib.suppress(OSError):
        os.set_inheritable(reading, False)  # noqa: FBT003 - as it is called
    os.close(reading)
    os.close(writing)


def _end_input() -> None:
    """Let a program that reads its standard input find the end of it, as on Linux. OSv's console never ends."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _tell_about_ipv6() -> None:
    """Let ``socket.has_ipv6`` tell the truth. Python's libc knows IPv6, but OSv does not."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        socket.has_ipv6 = False


def _remove_attribute_functions() -> None:
    """Remove the functions for extended attributes, because shutil does not expect the error that they raise on OSv."""
    try:
        os.listxattr("/")
    except OSError as error:
        if error.errno == errno.ENOSYS:
            _remove("listxattr", "getxattr", "setxattr", "removexattr")


def _remove(*names: str) -> None:
    """Remove functions of ``os``, so that ``hasattr(os, "fork")`` tells the truth."""
    for name in names:
        if hasattr(os, name):
            delattr(os, name)
