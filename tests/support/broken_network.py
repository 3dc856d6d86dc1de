"""Simulate a network between a client and a service that breaks when a test demands it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Network:
    """Relay TCP connections, which can be reset or held.

    `cuts` holds the numbers of bytes from the client after which the next connections that carry that much are reset.
    When clients have sent `hold_after` bytes, no more goes to the service until `flow`; answers stop after
    `hold_answers_after` bytes. `held` is set when bytes are held.
    """

    def __init__(self, target: str) -> None:
        self.lead_to(target)
        self._relays: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts: list[int] = []
        self.cut = 0
        """The number of connections that were reset."""
        self.hold_after: int | None = None
        self.hold_answers_after: int | None = None
        self.held = asyncio.Event()
        self.address = ""
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._sent = 0

    def hold(self, after: int) -> None:
        """Carry `after` more bytes from clients, then hold the rest."""
        self._sent, self.hold_after = 0, after

    def lead_to(self, target: str) -> None:
        """Connect new connections to `http://host:port`."""
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))

    def flow(self) -> None:
        """Carry all bytes again."""
        self.hold_after = self.hold_answers_after = None
        self.held.clear()
        self._flowing.set()

    def reset(self) -> None:
        """Reset all connections now."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        except (OSError, asyncio.CancelledError) as error:
            writer.transport.abort()
            if isinstance(error, OSError):
                return
            raise
        pair = {writer, upstream_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, upstream_writer, counted=True))
                both.create_task(self._carry(upstream_reader, writer, counted=False))
        except* (OSError, EOFError):
            pass
        finally:
            self._writers -= pair
            for one in pair:
                one.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        carried = 0
        while data := await reader.read(65536):
            carried += len(data)
            if not counted and self.hold_answers_after is not None and carried > self.hold_answers_after:
                await self._stopped()
            if counted:
                self._sent += len(data)
                if self.hold_after is not None and self._sent >= self.hold_after and len(data) > 1024:
                    await self._stopped()  # hold bodies; let small requests (such as for the offset) through
                if self.cuts and carried >= self.cuts[0]:
                    del self.cuts[0]
                    self.cut += 1
                    raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _stopped(self) -> None:
        self._flowing.clear()
        self.held.set()
        await self._flowing.wait()

    async def aclose(self) -> None:
        self.reset()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)


@asynccontextmanager
async def network(target: str) -> AsyncIterator[Network]:
    """Relay to `host:port` from a free port."""
    relay = Network(target)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # little room for held bytes in buffers
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(relay._connected, sock=listening)
    relay.address = f"127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        await relay.aclose()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()
