"""The sockets on which a service accepts connections, and the connections that have not finished a TLS handshake."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

from aiohttp import web

from safelight.access.connections.descriptors import Door, Spare
from safelight.access.malformed import handlers
from safelight.client.availability.names import unknown_host

_BACKLOG = 1024


class Listener(socket.socket):
    """A listening socket that remembers what it accepted.

    asyncio passes a connection to the server only after its TLS handshake, so stalled ones are visible only here.
    """

    def __init__(self, family: int) -> None:
        """Create a TCP socket of an address family. Raises OSError."""
        super().__init__(family, socket.SOCK_STREAM)
        self._accepted: WeakSet[socket.socket] = WeakSet()
        self.on_accept: Callable[[], None] = lambda: None
        """Called when a connection was accepted."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises OSError."""
        connection, address = super().accept()
        self._accepted.add(connection)
        self.on_accept()
        return connection, address

    def accepted(self) -> list[socket.socket]:
        """Return the accepted connections that are still open, in no order."""
        return [each for each in self._accepted if each.fileno() >= 0]


async def listen(host: str, port: int, *, shared: bool = False) -> list[Listener]:
    """Bind to every address of a host name. Raises OSError.

    With `shared`, other processes of the same user may listen on the same port, and the kernel spreads connections.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        raise unknown_host() from None
    with ExitStack() as stack:
        listeners = []
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            listener = stack.enter_context(Listener(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.settimeout(0)
            listeners.append(listener)
        stack.pop_all()
        return listeners


class Site(web.SockSite):
    """A socket on which TLS handshakes have a deadline.

    asyncio's default is a minute, and aiohttp has no setting for it.

    Connections are refused when there are no descriptors for them.
    """

    def __init__(
        self, runner: web.AppRunner, listener: Listener, *, context: ssl.SSLContext | None, handshake: float
    ) -> None:
        """Give each handshake `handshake` seconds."""
        super().__init__(runner, listener, backlog=_BACKLOG, ssl_context=context)
        self._handshake = handshake
        self._stack = ExitStack()

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        self._stack.enter_context(Spare(self._sock, plain=self._ssl_context is None).ready())
        handler = handlers(server)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Door(handler),
            sock=self._sock,
            ssl=self._ssl_context,
            # A backlog of one, because without a descriptor asyncio tries to accept the whole backlog in vain, again
            # and again.
            backlog=1,
            ssl_handshake_timeout=self._handshake if self._ssl_context else None,
        )
        self._sock.listen(self._backlog)

    async def stop(self) -> None:
        """Take no more connections."""
        await super().stop()
        self._stack.close()
