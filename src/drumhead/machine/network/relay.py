"""Forward IPv6 ports of the host, because QEMU's user network forwards from IPv4 addresses only.

``python -m drumhead.machine.network.relay PID PORT FD …`` accepts connections on each socket FD and copies them to the
PORT of 127.0.0.1 given before it, until the process PID (QEMU) has ended.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.process import wait_process
from drumhead.machine.records import PortForward

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

CHUNK = 1 << 16
BACKLOG = 128
_reaping: set[asyncio.Task[None]] = set()
"""Tasks that wait for the relays which this process has started."""


@contextmanager
def doors(forwards: tuple[PortForward, ...], inner: tuple[PortForward, ...]) -> Iterator[dict[int, socket.socket]]:
    """Yield a listening socket for each IPv6 address among `forwards`, keyed by the inner port that it leads to.

    Raises CONFLICT if a port is taken.
    """
    with ExitStack() as stack:
        found: dict[int, socket.socket] = {}
        for outer, to in zip(forwards, inner, strict=False):
            if outer.is_ipv6:
                found[to.host_port] = door = stack.enter_context(bound(outer))
                door.listen(BACKLOG)
        yield found


def bound(forward: PortForward) -> socket.socket:
    """Return a socket that is bound to the host's side of a forward. Raises CONFLICT if the port is taken."""
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        opened = socket.socket(socket.AF_INET6 if forward.is_ipv6 else socket.AF_INET, kind)
        try:
            if forward.protocol == "tcp":
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if forward.is_ipv6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((forward.host_address, forward.host_port))
        except BaseException:
            opened.close()
            raise
    except OSError as error:
        message = f"the port {forward.endpoint} of this host cannot be used: {error.strerror}"
        raise DrumheadError(ErrorCode.CONFLICT, message) from error
    return opened


def start_relay(pid: int, found: dict[int, socket.socket]) -> None:
    """Start a background process that serves `found` (from ``doors``) until the process `pid` has ended.

    A supervisor, which starts one with each start of its machine, reaps it in the running event loop.
    """
    if not found:
        return
    argv = [text for port, door in found.items() for text in (str(port), str(door.fileno()))]
    process = subprocess.Popen(
        [sys.executable, "-m", "drumhead.machine.network.relay", str(pid), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[door.fileno() for door in found.values()],
        start_new_session=True,
    )
    process.returncode = 0  # Popen must not wait for it: it ends after the machine
    reaping = asyncio.create_task(wait_process(process.pid))
    _reaping.add(reaping)
    reaping.add_done_callback(_reaping.discard)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction of a connection until it ends, then end the other side too."""
    while part := await reader.read(CHUNK):
        writer.write(part)
        await writer.drain()
    with suppress(OSError):  # the other side may have gone
        writer.write_eof()


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: tuple[str, int]) -> None:
    """Connect to `to` and copy in both directions until both have ended."""
    there, back = await asyncio.open_connection(*to)
    try:
        await asyncio.gather(copy(reader, back), copy(there, writer))
    finally:
        back.close()


async def serve(pid: int, found: dict[int, socket.socket]) -> None:
    """Serve `found` until the process `pid` has ended."""

    async def listen(port: int, door: socket.socket) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await join(reader, writer, ("127.0.0.1", port))
            except OSError as error:
                log.info("a connection to port %d ended: %s", port, error)
            finally:
                writer.close()

        return await asyncio.start_server(accept, sock=door)

    servers = [await listen(port, door) for port, door in found.items()]
    try:
        await wait_process(pid)
    finally:
        for server in servers:
            server.close()


if __name__ == "__main__":
    numbers = list(map(int, sys.argv[2:]))
    sockets = {port: socket.socket(fileno=fd) for port, fd in zip(numbers[::2], numbers[1::2], strict=True)}
    asyncio.run(serve(int(sys.argv[1]), sockets))
