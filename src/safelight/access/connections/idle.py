"""Close connections that hold a place without using it.

A new connection must send the head of a request in time, and read the response. One address may hold a limited number
of connections, including unfinished TLS handshakes. Connections of this system's services, of this machine if it needs
no key, and of trusted proxies do not count, since many clients share them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CollectorRegistry, Counter

from safelight import background
from safelight.access.caller import Caller
from safelight.access.connections.listener import Listener
from safelight.access.malformed import Handler
from safelight.access.networks import Networks

log = logging.getLogger(__name__)

_EVERY = 1.0
"""Seconds between two checks."""
_EVERY_QUIET = 10.0
"""The same while all connections are those of authenticated services, which have taken all bytes, and none is new."""
_MOST_LOOKS = 60
"""The number of checks in a row at which a client may have read nothing of a waiting response."""
_COUNTED_ON = frozenset({"cluster", "loopback"})


class Connections:
    """Closes connections that are silent for too long, and those beyond the limit."""

    def __init__(
        self, registry: CollectorRegistry, proxies: Networks, *, header_timeout: float, per_address: int
    ) -> None:
        self._proxies = proxies
        self._header_timeout = header_timeout
        self._per_address = per_address
        self._since: dict[RequestHandler, float] = {}
        self._trusted: dict[RequestHandler, bool] = {}
        """Connections that have sent a request, and whether the request was authenticated."""
        self._untaken: dict[RequestHandler, tuple[int, int]] = {}
        """The bytes that wait for a client to read them, and at how many checks it had read none."""
        self._closed = Counter(
            "safelight_connections_closed", "Connections closed for what they did not do", ["reason"], registry=registry
        )

    def note(self, request: web.Request, caller: Caller) -> None:
        """Record a request whose caller is known."""
        self._trusted[request.protocol] = caller.via in _COUNTED_ON

    @asynccontextmanager
    async def watching(self, server: web.Server, listeners: Sequence[Listener]) -> AsyncIterator[None]:
        """Check a server's connections, and those that its listeners accepted, until the context ends."""
        async with background.running(lambda: self._watch(server, listeners), "connections"):
            yield

    async def _watch(self, server: web.Server, listeners: Sequence[Listener]) -> None:
        accepted = asyncio.Event()
        for listener in listeners:
            listener.on_accept = accepted.set
        while True:
            accepted.clear()
            if self._is_quiet():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY_QUIET):
                        await accepted.wait()
            await asyncio.sleep(_EVERY)
            self._look(server.connections, time.monotonic())
            self._look_at_handshakes(server.connections, [each for of in listeners for each in of.accepted()])

    def _is_quiet(self) -> bool:
        return not self._untaken and all(self._trusted.get(each, False) for each in self._since)

    def _look(self, connections: list[RequestHandler], now: float) -> None:
        # Forget connections that were closed since the last check.
        self._since = {each: self._since.get(each, now) for each in connections}
        self._trusted = {each: self._trusted[each] for each in connections if each in self._trusted}
        held: dict[str, list[RequestHandler]] = {}
        self._untaken = {each: self._waits(each, size) for each in connections if (size := _unsent(each))}
        for each, (_, looks) in self._untaken.items():
            if looks > _MOST_LOOKS:
                self._close(each, "stalled")
        for each, since in self._since.items():
            if each not in self._trusted and now - since > self._header_timeout:
                self._close(each, "silent")
            elif not self._trusted.get(each, False):
                held.setdefault(_peer(each), []).append(each)
        for peer, theirs in held.items():
            if len(theirs) > self._per_address and peer not in self._proxies:
                self._close_some(peer, theirs)

    def _waits(self, connection: RequestHandler, size: int) -> tuple[int, int]:
        before, looks = self._untaken.get(connection, (size, 0))
        return size, looks + 1 if size >= before else 0

    def _look_at_handshakes(self, connections: list[RequestHandler], accepted: list[socket.socket]) -> None:
        """Close TLS handshakes of an address that holds too many. Each handshake also has a deadline."""
        shown = {_number(each) for each in connections}
        held: dict[str, list[socket.socket]] = {}
        for each in accepted:
            if each.fileno() not in shown:
                with suppress(OSError):  # closed meanwhile
                    held.setdefault(str(each.getpeername()[0]), []).append(each)
        for peer, theirs in held.items():
            if len(theirs) > self._per_address and peer not in self._proxies:
                excess = theirs[self._per_address :]
                log.warning("%s holds %d TLS handshakes; closing %d", peer, len(theirs), len(excess))
                for each in excess:
                    self._closed.labels("too_many").inc()
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)  # its transport then closes it

    def _close_some(self, peer: str, theirs: list[RequestHandler]) -> None:
        """Close first the connections without a request, oldest first, and then the newest ones."""
        silent = [each for each in theirs if each not in self._trusted]
        rest = [each for each in reversed(theirs) if each in self._trusted]
        excess = [*silent, *rest][: len(theirs) - self._per_address]
        log.warning("%s holds %d connections; closing %d", peer, len(theirs), len(excess))
        for each in excess:
            self._close(each, "too_many")

    def _close(self, connection: RequestHandler, reason: str) -> None:
        self._closed.labels(reason).inc()
        unsent = _unsent(connection)
        connection.force_close()
        if unsent:  # a closed transport waits for the client to read what was written
            _carrier(connection).abort()


def _carrier(connection: RequestHandler) -> asyncio.Transport:
    assert isinstance(connection, Handler)
    assert connection.carrier is not None
    return connection.carrier


def _unsent(connection: RequestHandler) -> int:
    """Return how many bytes of responses wait for the client to read them."""
    return _carrier(connection).get_write_buffer_size()


def _number(connection: RequestHandler) -> int:
    """Return the descriptor of a connection, -1 once it is closed."""
    found = connection.transport.get_extra_info("socket") if connection.transport else None
    return -1 if found is None else int(found.fileno())


def _peer(connection: RequestHandler) -> str:
    found = connection.peername
    return str(found[0]) if isinstance(found, tuple) else ""
