"""Stand in for the QEMU process of a machine, where a test needs only its lock, its sockets and its monitor."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from drumhead.machine.records import InstanceSpec, Launch, PortForward
from drumhead.records import Command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
)


def launched(
    name: str,
    *,
    mac: str = "02:00:00:00:00:01",
    address: str = "10.64.0.1",
    forwards: tuple[PortForward, ...] = (),
    attached: bool = False,
    fleet: str = "",
    **spec: Any,
) -> Launch:
    """Return the record of a machine whose start was begun; `spec` are the other fields of its specification."""
    return Launch(
        spec=InstanceSpec(name=name, image="i", command=Command(argv=("x",)), **spec),
        image_digest="",
        accelerator="tcg",
        mac=mac,
        address=address,
        forwards=forwards,
        started_at=1.0,
        attached=attached,
        fleet=fleet,
    )


@contextmanager
def holding_pid_file(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that holds the pid file of a machine, as QEMU does."""
    words = [sys.executable, "-c", HOLD, str(directory / "pid")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def guest(
    path: Path, handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """Serve the guest's end of a socket, until every connection has ended."""
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        with suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()

    async with await asyncio.start_unix_server(serve, path, limit=1 << 20):
        yield
        await asyncio.gather(*filter(None, connections))


class Commands(list[str]):
    """The commands that a monitor got."""

    def __init__(self) -> None:
        self._got = asyncio.Event()

    def note(self, command: str) -> None:
        self.append(command)
        self._got.set()

    async def wait(self, command: str, count: int) -> None:
        """Wait until the monitor has got `command` `count` times more."""
        self.clear()
        while self.count(command) < count:
            self._got.clear()
            await self._got.wait()


@asynccontextmanager
async def monitor_of_a_paused_machine(directory: Path, *states: str) -> AsyncIterator[Commands]:
    """Answer as the QEMU of a machine whose write did not fit on the host. Yield the commands that it got.

    It is asked for its state once for each of `states` before that.
    """
    commands, earlier = Commands(), list(states)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
        writer.write(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\r\n")
        while text := await reader.read(4096):  # the client waits for each answer
            command = json.loads(text)
            commands.note(command["execute"])
            value = {}
            if command["execute"] == "query-status":
                value = {"status": earlier.pop(0) if earlier else "io-error"}
            name = {"id": command["id"]} if "id" in command else {}
            writer.write(json.dumps({"return": value, **name}).encode() + b"\r\n")
        writer.close()

    async with await asyncio.start_unix_server(answer, directory / "qmp.sock"):
        yield commands
