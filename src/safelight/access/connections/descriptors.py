"""Refuse connections while this process is short of file descriptors, so that it can serve the ones that it has.

Otherwise connections would take the last descriptors, no file could be opened for their requests, and further clients
would wait unnoticed until one disconnects.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from safelight.errors import Code, Error
from safelight.wire import encode

log = logging.getLogger(__name__)

_RESERVE = 64
_PART = 4
"""Descriptors to reserve for files and calls to other services: 64, but at most a quarter."""
_FEW = 4
"""With fewer than these left, disconnect refused clients as soon as they have sent something."""
_RETRY_AFTER = 2
_LINGER = 1.0
_READ_FOR = 0.2
"""Seconds for which a refused client may send, so that it reads the reason; and after its first bytes."""

_AT_ONCE = 256
"""The most connections to refuse in a row."""

Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


def limit() -> int | None:
    """Return how many descriptors this process may have, or None if there is no limit."""
    try:
        import resource  # noqa: PLC0415 - not on every platform

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError):
        return None
    return None if soft == resource.RLIM_INFINITY else soft


class Door(asyncio.Protocol):
    """The protocol of a connection until it is known whether there is room for it."""

    def __init__(self, serve: Callable[[], asyncio.BaseProtocol]) -> None:
        """`serve` makes the protocol of an accepted connection."""
        self._serve = serve
        self._transport: asyncio.Transport | None = None
        self._read_for = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass the connection on, or refuse it."""
        assert isinstance(transport, asyncio.Transport)
        most, place = limit(), transport.get_extra_info("socket")
        # The system assigns the lowest free number, so a high one means that nearly all are taken.
        if most is None or place is None or place.fileno() < most - min(_RESERVE, most // _PART):
            protocol = self._serve()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            return
        self._transport = transport
        transport.write(_refusal())
        few = place.fileno() >= most - _FEW
        self._read_for = 0.0 if few else _READ_FOR
        asyncio.get_running_loop().call_later(_READ_FOR if few else _LINGER, transport.abort)

    def data_received(self, _data: bytes) -> None:
        """Read what the client sends; unread bytes would make the kernel discard the response."""
        if self._transport is not None:
            asyncio.get_running_loop().call_later(self._read_for, self._transport.close)
            self._transport = None


class Spare:
    """A spare descriptor, which is closed for a moment to accept waiting connections when there is no other."""

    def __init__(self, listening: socket.socket, *, plain: bool) -> None:
        """Refuse connections to `listening`; without TLS (`plain`), say why."""
        self._listening = listening
        self._plain = plain
        self._file: int | None = os.open(os.devnull, os.O_RDONLY)
        self._before: Handler | None = None

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Handle connections that asyncio could not accept, which it reports as exceptions, until the context ends."""
        loop = asyncio.get_running_loop()
        self._before = loop.get_exception_handler()
        loop.set_exception_handler(self._handle)
        try:
            yield
        finally:
            loop.set_exception_handler(self._before)
            self._release()

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, place = context.get("exception"), context.get("socket")
        scarce = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
        if scarce and place is not None and place.fileno() == self._listening.fileno():
            log.warning("There are no file descriptors left; connections are refused. Raise the limit of open files.")
            self._refuse()
        elif self._before is not None:
            self._before(loop, context)
        else:
            loop.default_exception_handler(context)

    def _refuse(self) -> None:
        self._release()
        with suppress(OSError):  # until none is waiting
            for _ in range(_AT_ONCE):
                connection, _ = self._listening.accept()
                with connection, suppress(OSError):
                    connection.settimeout(0.0)
                    if self._plain:
                        connection.send(_refusal())
                    connection.recv(1 << 16)
        with suppress(OSError):
            self._file = os.open(os.devnull, os.O_RDONLY)

    def _release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _refusal() -> bytes:
    error = Error(
        Code.UNAVAILABLE,
        "This service has too many connections and files open. Try again soon; its operator can raise the limit of "
        "open files (ulimit -n).",
        retry_after=_RETRY_AFTER,
    )
    body = encode(error.problem())
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        f"Retry-After: {_RETRY_AFTER}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
