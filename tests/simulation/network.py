"""A simulated network: `create_server` and `create_connection` make pairs of transports in memory.

The product's HTTP runs over it unchanged. Bytes in one direction of a connection stay in order, as with TCP, but
connections may overtake one another. Between two machines that are cut off, nothing arrives until the cut is healed.
The connections of a killed process are reset; those of a machine that loses power become silent, until the probes of
clients find that it has started anew or is gone.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web

from safelight.access.malformed import handlers
from simulation.loop import PROCESS, Process, SimulatedLoop

_CHUNK = 1 << 14
_LATE = (1.0, 8.0)
"""Seconds by which late answers are delayed: shorter and longer than a lease."""


_PROBE_EVERY, _PROBES = 5.0, 3
"""As in `safelight.client.availability.sockets`."""


class _Socket:
    """Stand in for a socket in aiohttp."""

    def __init__(self, port: int) -> None:
        self.port = port

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def close(self) -> None:
        pass


class Listener:
    """Stand in for a result of `safelight.access.connections.listener.listen`: a port without a listener so far."""

    def __init__(self, port: int) -> None:
        self.port = port

    def accepted(self) -> list[Any]:
        """Return the connections with an unfinished TLS handshake: none, because there is no TLS."""
        return []


async def listen(_host: str, port: int, *, shared: bool = False) -> list[Listener]:
    """Replace `safelight.access.connections.listener.listen`."""
    return [Listener(port)]


class Site(web.BaseSite):
    """Replace `access.connections.listener.Site`, which needs real descriptors."""

    def __init__(self, runner: web.AppRunner, listener: Listener, **_: Any) -> None:
        super().__init__(runner)
        self._listener = listener

    @property
    def name(self) -> str:
        return f"simulated port {self._listener.port}"

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()
        assert self._runner.server is not None
        self._server = await loop.create_server(handlers(self._runner.server), "127.0.0.1", self._listener.port)


class _Server:
    """Stand in for the result of `create_server`."""

    def __init__(self, network: Network, port: int, factory: Callable[[], Any]) -> None:
        self._network = network
        self.port = port
        self.factory = factory
        self.process = PROCESS.get()
        self.context = contextvars.copy_context()
        self.sockets = [_Socket(port)]

    def close(self) -> None:
        if self._network.listeners.get(self.port) is self:
            del self._network.listeners[self.port]

    async def wait_closed(self) -> None:
        pass

    def is_serving(self) -> bool:
        return self._network.listeners.get(self.port) is self


class Transport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: Network, process: Process | None, context: contextvars.Context, port: int) -> None:
        super().__init__({"peername": ("127.0.0.1", port), "sockname": ("127.0.0.1", port)})
        self._network = network
        self.process = process
        self.context = context
        self.port = port
        self.peer: Transport | None = None
        self.protocol: Any = None
        self.arrived: deque[bytes | None] = deque()
        self.last = 0.0
        self.answers = False
        """Whether this end belongs to a server."""
        self._paused = self._closing = self.lost = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._network.loop.call_soon(self.pump, context=self.context)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        if not self._closing and self.process_runs():
            view = bytes(data)
            for start in range(0, len(view), _CHUNK):
                self._network.send(self, view[start : start + _CHUNK])

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if self.process_runs():
                self._network.send(self, None)
            self._network.loop.call_soon(self.lose, None, context=self.context)

    def abort(self) -> None:
        if not self.lost:
            self._closing = True
            if self.process_runs():
                self._network.reset(self)
            self._network.loop.call_soon(self.lose, None, context=self.context)

    def process_runs(self) -> bool:
        return self.process is None or self.process.alive

    def lose(self, error: Exception | None) -> None:
        """Report a lost connection to the protocol."""
        self._closing = True
        if not self.lost:
            self.lost = True
            self._network.forget(self)
            self.protocol.connection_lost(error)

    def pump(self) -> None:
        """Pass the received bytes to the protocol."""
        while self.arrived and not self._paused and not self._closing:
            data = self.arrived.popleft()
            if data is not None:
                self.protocol.data_received(data)
            elif not self.protocol.eof_received():
                self.close()


class Network:
    """All listeners and connections, and their current faults."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        self.loop = loop
        self._rng = rng
        self.listeners: dict[int, _Server] = {}
        self._connections: dict[Transport, None] = {}
        self.slow = 0.0
        """Seconds by which each chunk may currently be slower."""
        self.lossy = self.stale = 0.0
        """The current probability that an answer is lost with its connection, or is late."""
        self._cut: dict[frozenset[str], None] = {}
        self._free = 9000
        self._held: list[tuple[Transport, bytes | None]] = []
        loop.network = self

    # The interface of the event loop.

    async def create_server(self, factory: Callable[[], Any], host: str, port: int, **_: Any) -> _Server:
        if port == 0:
            self._free += 1
            port = self._free
        server = self.listeners.get(port)
        if server is not None and (server.process is None or server.process.alive):
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.listeners[port] = made = _Server(self, port, factory)
        return made

    async def start_connection(self, addr_infos: list[Any], **_: Any) -> _Socket:
        """Replace `aiohappyeyeballs.start_connection`. Raises ConnectionRefusedError."""
        port = addr_infos[0][4][1]
        process = PROCESS.get()
        await asyncio.sleep(self.delay())
        server = self.listeners.get(port)
        while server is not None and self._apart(process, server.process):
            await asyncio.sleep(0.5)  # until the caller's timeout
            server = self.listeners.get(port)
        self._listening(port)
        return _Socket(port)

    async def create_connection(self, factory: Callable[[], Any], *, sock: _Socket, **_: Any) -> tuple[Any, Any]:
        server = self._listening(sock.port)
        near = Transport(self, PROCESS.get(), contextvars.copy_context(), sock.port)
        far = Transport(self, server.process, server.context.copy(), sock.port)
        near.peer, far.peer = far, near
        far.answers = True
        near.protocol = factory()
        self._connections[near] = self._connections[far] = None
        near.protocol.connection_made(near)

        def accept() -> None:
            far.protocol = server.factory()
            far.protocol.connection_made(far)

        self.loop.call_soon(accept, context=far.context)
        return near, near.protocol

    def _listening(self, port: int) -> _Server:
        server = self.listeners.get(port)
        if server is None or (server.process is not None and not server.process.alive):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return server

    # The transport of bytes.

    def delay(self) -> float:
        """Return the seconds that a chunk takes to arrive."""
        slow = self._rng.uniform(0, self.slow) if self.slow else 0.0
        return self._rng.uniform(0.0001, 0.002) + slow

    def send(self, transport: Transport, data: bytes | None) -> None:
        """Deliver bytes, or their end (None), to the other end."""
        peer = transport.peer
        assert peer is not None
        late = (
            self._rng.uniform(*_LATE) if self.stale and transport.answers and self._rng.random() < self.stale else 0.0
        )
        peer.last = max(peer.last + 1e-7, self.loop.time() + self.delay() + late)
        self.loop.call_at(peer.last, self._arrive, peer, data, context=contextvars.Context())

    def reset(self, transport: Transport) -> None:
        """Reset the connection for the other end."""
        peer = transport.peer
        if peer is not None and not peer.lost:
            peer.last = max(peer.last + 1e-7, self.loop.time() + self.delay())
            error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            self.loop.call_at(peer.last, self._lose, peer, error, context=contextvars.Context())

    def _lose(self, peer: Transport, error: Exception) -> None:
        if peer.protocol is not None and peer.process_runs():
            self.loop.call_soon(peer.lose, error, context=peer.context)

    def _arrive(self, peer: Transport, data: bytes | None) -> None:
        if peer.lost:
            return
        sender = peer.peer
        if sender is not None and self._apart(sender.process, peer.process):
            self._held.append((peer, data))
            return
        if not peer.process_runs():
            self._silent(peer)
            return
        if sender is not None and self.lossy and sender.answers and self._rng.random() < self.lossy:
            self.reset(peer)
            self._lose(peer, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            return
        peer.arrived.append(data)
        self.loop.call_soon(peer.pump, context=peer.context)

    def _silent(self, peer: Transport) -> None:
        """Reset the connection of an ended process once its machine runs again."""
        sender = peer.peer
        if sender is not None and sender.process_runs() and peer.lost is False:
            self._lose(sender, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def forget(self, transport: Transport) -> None:
        """Forget a connection."""
        self._connections.pop(transport, None)

    # Faults.

    def gone(self, process: Process, *, silently: bool) -> None:
        """End the connections of a dead process, silently if its machine has lost power."""
        for transport in list(self._connections):
            if transport.process is process:
                self.forget(transport)
                if not silently:
                    self.reset(transport)
                elif transport.answers and transport.peer is not None:
                    self._probe(transport.peer, _PROBES)

    def _probe(self, waiting: Transport, left: int) -> None:
        """Do what the kernel of a client does for a connection that carries nothing (`client.availability.sockets`)."""

        def probe() -> None:
            if waiting.lost or not waiting.process_runs():
                return
            server = self.listeners.get(waiting.port)
            if server is not None and server.process is not None and server.process.alive:
                self._lose(waiting, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            elif left:
                self._probe(waiting, left - 1)
            else:
                self._lose(waiting, TimeoutError(errno.ETIMEDOUT, "Connection timed out"))

        self.loop.call_at(self.loop.time() + _PROBE_EVERY, probe, context=contextvars.Context())

    def tear(self) -> None:
        """Reset one connection."""
        alive = [each for each in self._connections if each.protocol is not None and each.process_runs()]
        if alive:
            one = self._rng.choice(alive)
            self.reset(one)
            self._lose(one, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def cut(self, one: str, other: str) -> None:
        """Block everything between two machines."""
        self._cut[frozenset((one, other))] = None

    def heal(self) -> None:
        """End all cuts; delayed bytes arrive."""
        self._cut.clear()
        held, self._held = self._held, []
        for peer, data in held:
            self._arrive(peer, data)

    def _apart(self, one: Process | None, other: Process | None) -> bool:
        return one is not None and other is not None and frozenset((one.name, other.name)) in self._cut
