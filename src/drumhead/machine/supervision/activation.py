"""Listen on the ports of a machine that sleeps, start it at the first connection, and stop it when it is idle.

Connections wait until the machine's program listens. The machine's own forwards use other, free ports of this host;
every connection is copied to one of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode, message_of
from drumhead.machine.boot import wait_started
from drumhead.machine.instances import STOPPING, status_lines, write_supervision
from drumhead.machine.launch import restart_machine
from drumhead.machine.network.relay import join
from drumhead.machine.process import wait_process
from drumhead.machine.qemu.channel import control, is_paused
from drumhead.machine.records import Supervision
from drumhead.machine.session.protocol import is_attended
from drumhead.machine.stop import END_TIME, stop_machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from drumhead.home import Home
    from drumhead.machine.instances import Instances
    from drumhead.machine.records import Instance, PortForward

log = logging.getLogger(__name__)

START_TIME = 120.0
"""Seconds from a connection within which the machine's program has to listen."""
MAX_WAITING = 128
"""The number of connections that may wait for a start at the same time. Further ones are refused."""
POLL = 0.05
"""Seconds between two checks whether a program listens, which takes from 0.2 s to several seconds."""
METHODS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"PATC", b"DELE", b"OPTI")


class SocketActivation:
    """The open ports of one machine."""

    def __init__(self, home: Home, instances: Instances, name: str) -> None:
        self._home = home
        self._instances = instances
        self._name = name
        self._one_change = asyncio.Lock()
        self._one_question = asyncio.Lock()
        self._waiting = self._open = 0
        self._idle_since = self._began = time.monotonic()
        self._has_listened = False
        self._watcher: asyncio.Task[None] | None = None
        self._watched = self._put_to_sleep = -1
        self._ends = 0

    @asynccontextmanager
    async def listening(self, forwards: tuple[PortForward, ...]) -> AsyncIterator[None]:
        """Accept connections on the host's side of `forwards`. Raises CONFLICT if a port is taken."""
        servers: list[asyncio.Server] = []
        try:
            for index, forward in enumerate(forwards):
                try:
                    servers.append(await self._listen(index, forward))
                except OSError as error:
                    message = f"the port {forward.endpoint} of this host cannot be used: {error.strerror}"
                    raise DrumheadError(ErrorCode.CONFLICT, message) from error
            yield
        finally:
            for server in servers:
                server.close()
            if self._watcher:
                self._watcher.cancel()

    async def _listen(self, index: int, forward: PortForward) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._serve(index, forward.guest_port, reader, writer)
            except OSError as error:
                log.info("%s: a connection ended: %s", self._name, error)
            finally:
                writer.close()

        return await asyncio.start_server(accept, forward.host_address, forward.host_port, backlog=MAX_WAITING)

    def watch(self, pid: int) -> None:
        """Record and log the end of the machine that is running as `pid` (0 if it has ended), if it ends by itself.

        It has been idle from now on, and its program has not listened yet.
        """
        self._watched = pid
        self._idle_since = self._began = time.monotonic()
        self._has_listened = False
        write_supervision(self._instances.directory(self._name), Supervision(restarts=self._ends, asleep=True))
        self._watcher = asyncio.create_task(self._note_end(pid))

    async def _note_end(self, pid: int) -> None:
        if pid:
            await wait_process(pid)
        directory = self._instances.directory(self._name)
        if pid == self._put_to_sleep or (directory / STOPPING).exists():
            return
        with suppress(DrumheadError):  # the machine was deleted
            reason = self._instances.last_end(self._name)
            log.warning("%s: %s; the next connection starts it again", self._name, reason)
            self._ends += 1
            write_supervision(directory, Supervision(restarts=self._ends, asleep=True, reason=reason))

    def idle_for(self) -> float:
        """Return the number of seconds since the last connection ended, or 0 while there is one."""
        return 0.0 if self._open or self._waiting else time.monotonic() - self._idle_since

    async def sleep(self, idle: float) -> bool:
        """Stop the machine if nobody was connected for `idle` seconds. Return whether it was stopped.

        The time before its program first listened does not count, nor the time while a person or a script runs a
        program beside it or has its console open. A machine that a full disk has paused goes on, so that it can write
        what it still holds.
        """
        async with self._one_change:
            if self._watch_another(self._instances.read(self._name)) or self.idle_for() < idle:
                return False
            if await self._is_starting() or is_attended(self._instances.directory(self._name)):
                self._idle_since = time.monotonic()
                return False
            if self._is_ending():
                return False
            if await is_paused(self._instances.directory(self._name), resume=True):
                log.warning("%s is paused, because the host's disk is full; it is not put to sleep", self._name)
                self._idle_since = time.monotonic()
                return False
            self._put_to_sleep = self._instances.read(self._name).pid
            await stop_machine(self._instances, self._name, final=False)
            return True

    def _watch_another(self, instance: Instance) -> bool:
        """Watch a machine that another command has started. Return whether that was so."""
        if instance.pid in {0, self._watched}:
            return False
        self.watch(instance.pid)
        return True

    async def _is_starting(self) -> bool:
        """Return whether the machine is running and its program has not listened yet but still has time to."""
        if self._has_listened or time.monotonic() - self._began >= START_TIME:
            return False
        instance = self._instances.read(self._name)
        if instance.state != "running":
            return instance.state == "starting"
        ports = {forward.guest_port for forward in instance.launch.forwards}
        with suppress(DrumheadError):  # the machine has ended in the meantime
            self._has_listened = any([await self._listens(port) for port in ports])
            return not self._has_listened
        return False

    def _is_ending(self) -> bool:
        """Return whether the machine's program has ended by itself, which the watcher will note."""
        lines = status_lines(self._instances.directory(self._name) / "status")
        return any(line.event == "exit" for line in lines)

    async def _listens(self, port: int) -> bool:
        async with self._one_question:  # the control channel has one client at a time
            answer = await control(self._instances.directory(self._name), {"do": "listening", "port": port})
        return bool(answer.get("listening"))

    async def _serve(self, index: int, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wait until the machine's program listens, then copy in both directions until both have ended."""
        if self._waiting >= MAX_WAITING:
            await refuse(reader, writer, f"{MAX_WAITING} connections wait for {self._name} to start")
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(START_TIME):
                instance = await self._wake(port)
        except TimeoutError:
            log.warning("%s: nothing listened on port %d within %.0f s", self._name, port, START_TIME)
            await refuse(reader, writer, f"{self._name} did not listen on port {port} within {START_TIME:.0f} s")
            return
        except (DrumheadError, OSError) as error:
            log.warning("%s: %s", self._name, message_of(error))
            await refuse(reader, writer, f"{self._name} could not be started")
            return
        finally:
            self._waiting -= 1
            self._idle_since = time.monotonic()
        self._open += 1
        try:
            inner = instance.launch.inner_forwards[index]
            await join(reader, writer, (inner.host_address, inner.host_port))
        finally:
            self._open -= 1
            self._idle_since = time.monotonic()

    async def _wake(self, port: int) -> Instance:
        """Start the machine if it sleeps, and return it when its program listens on `port`.

        The machine is not put to sleep while a connection waits here. One that was awake may be about to end by itself;
        then it is started again.
        """
        instance, started = await self._awake()
        try:
            return await self._wait_listening(instance, port)
        except DrumheadError:
            if started or (instance.pid and not await _ends(instance.pid)):
                raise
        instance, _ = await self._awake()
        return await self._wait_listening(instance, port)

    async def _awake(self) -> tuple[Instance, bool]:
        """Return the running machine, and whether it had to be started."""
        async with self._one_change:
            instance = self._instances.read(self._name)
            self._watch_another(instance)
            starts = not instance.pid
            if starts:
                if self._watcher:
                    await asyncio.wait({self._watcher})  # it reads the status that the start removes
                log.info("%s: a connection starts it", self._name)
                started = await restart_machine(self._home, self._name, attached=False)
                self.watch(started.pid)
            if instance.state != "running":
                instance = await wait_started(self._instances, self._name)
            return instance, starts

    async def _wait_listening(self, instance: Instance, port: int) -> Instance:
        # A port where nothing listens must not hold up connections to the others.
        while True:
            if await self._listens(port):
                self._has_listened = True
                return instance
            await asyncio.sleep(POLL)


async def _ends(pid: int) -> bool:
    """Return whether a machine that does not answer ends within END_TIME."""
    try:
        async with asyncio.timeout(END_TIME):
            await wait_process(pid)
    except TimeoutError:
        return False
    return True


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reason: str) -> None:
    """Close a connection. If the client speaks HTTP, answer 503 with the reason first."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            if (await reader.read(4)).startswith(METHODS):
                body = f"{reason}\n".encode()
                head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(body)}\r\nRetry-After: 5\r\n"
                writer.write(f"{head}Content-Type: text/plain\r\nConnection: close\r\n\r\n".encode() + body)
                await writer.drain()
