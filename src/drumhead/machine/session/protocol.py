"""The host's side of an exec session. guest/linux/init/programs/session.c describes the frames."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import struct
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest.contract import SESSIONS, exec_channel
from drumhead.machine.instances import is_locked
from drumhead.machine.qemu.channel import connect, control, is_paused, plug

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from drumhead.records import Command

HEADER = struct.Struct(">cI")
START_TIMES = [5.0, 10.0, 20.0]
"""Seconds to wait for the first frame, by attempt. A port whose last client was killed may need another attempt, and a
machine on a busy host may need longer, however often it is asked.
"""
MAX_REQUEST = 1 << 20
"""The bytes of a request that init takes (session.c); it drops a longer one without an answer."""
MAX_INPUT = 32768
MAX_OUTPUT = 1 << 16

FrameKind = Literal["output", "errors", "exit"]
KINDS: dict[bytes, FrameKind] = {b"1": "output", b"2": "errors", b"x": "exit"}


class Terminal(msgspec.Struct, frozen=True):
    """The size of the terminal that a program gets."""

    rows: int
    cols: int


class Session:
    """A program that runs in a machine. ``frames`` ends when the program exits."""

    def __init__(
        self, directory: Path, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._directory = directory
        self._number = number
        self._reader = reader
        self._writer = writer

    async def frames(self) -> AsyncIterator[tuple[FrameKind, bytes]]:
        """Yield the program's output, and finally its exit status as one byte.

        Raises GUEST if the machine ends first or sends something else.
        """
        while True:
            try:
                kind, size = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                if kind not in KINDS or size > MAX_OUTPUT or (kind == b"x" and size != 1):
                    raise DrumheadError(ErrorCode.GUEST, "the machine sent something that is no output of a program")
                payload = await self._reader.readexactly(size)
            except (asyncio.IncompleteReadError, OSError) as error:
                raise DrumheadError(ErrorCode.GUEST, "the machine ended before the program did") from error
            yield KINDS[kind], payload
            if kind == b"x":
                return

    async def go(self) -> None:
        """Let the program start. Before that, the machine only holds the request, which may have been repeated."""
        with suppress(OSError):  # ``frames`` tells of a machine that has ended
            await self._send(b"g", b"")

    async def send_input(self, data: bytes) -> None:
        """Send input to the program; empty data ends the input. Wait while the program does not read."""
        for start in range(0, max(len(data), 1), MAX_INPUT):
            await self._send(b"0", data[start : start + MAX_INPUT])

    async def resize(self, size: Terminal) -> None:
        await self._send(b"r", struct.pack(">HH", size.rows, size.cols))

    async def signal(self, number: int) -> None:
        """Send a signal to the program. It does not wait behind input that the program does not read."""
        try:
            await control(self._directory, {"do": "signal", "session": self._number, "number": number})
        except DrumheadError:  # its image is older than this request
            await self._send(b"s", bytes([number]))

    async def leave(self) -> None:
        """Send the last frame. If the program is still running, it receives SIGHUP."""
        await self._send(b"q", b"")

    async def _send(self, kind: bytes, payload: bytes) -> None:
        self._writer.write(HEADER.pack(kind, len(payload)) + payload)
        await self._writer.drain()


@asynccontextmanager
async def open_session(directory: Path, command: Command, terminal: Terminal | None = None) -> AsyncIterator[Session]:
    """Start a program in the machine with this directory.

    Raises CONFLICT if all ports are in use, USAGE if the command is too long, GUEST.
    """
    with _free_port(directory) as number:
        channel = exec_channel(directory, number)
        for time_limit in START_TIMES:
            await plug(directory, channel.name, time_limit)
            async with connect(directory, channel.path.name) as (reader, writer):
                if not await _begin(reader, writer, command, terminal, time_limit):
                    if time_limit == START_TIMES[-1] or await is_paused(directory):
                        raise await _silence(directory)
                    continue
                session = Session(directory, number, reader, writer)
                try:
                    await session.go()
                    yield session
                finally:
                    try:
                        async with asyncio.timeout(1):
                            await session.leave()
                    except (TimeoutError, OSError):
                        pass  # closing the connection has the same effect
                return


async def _silence(directory: Path) -> DrumheadError:
    """Return the error for a machine that does not answer."""
    if await is_paused(directory):
        message = f"{directory.name} is paused, because a disk of this host is full; free some space, then "
        return DrumheadError(ErrorCode.GUEST, f"{message}`drumhead start {directory.name}` lets it continue")
    message = f"{directory.name} does not start programs; `drumhead logs --console {directory.name}` may say why. "
    return DrumheadError(ErrorCode.GUEST, f"{message}If an older drumhead has composed its image, compose that again")


async def _begin(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    command: Command,
    terminal: Terminal | None,
    time_limit: float,
) -> bool:
    """Send the request for a program. Return whether the machine has answered within `time_limit`. Raises USAGE."""
    token = secrets.token_hex(16)
    request: dict[str, object] = {
        "argv": command.argv,
        "env": command.env,
        "cwd": command.cwd,
        "token": token,
        "confirm": True,
    }
    if terminal is not None:
        request |= {"tty": True, "rows": terminal.rows, "cols": terminal.cols}
    line = msgspec.json.encode(request) + b"\n"
    if len(line) > MAX_REQUEST:
        reason = (
            f"the program, its arguments and its variables take {len(line)} bytes; at most {MAX_REQUEST} are possible"
        )
        advice = "Give the program its data as input"
        if len(msgspec.json.encode(command.env)) > len(line) / 2:
            advice = "Most of this is variables, the machine's own included; keep large values in files or secrets"
        raise DrumheadError(ErrorCode.USAGE, f"{reason}. {advice}")
    writer.write(line)
    try:
        async with asyncio.timeout(time_limit):
            await writer.drain()
            # Anything before the token is left over from a client that was killed.
            await reader.readuntil(token.encode())
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return False
    return True


def is_attended(directory: Path) -> bool:
    """Return whether a command runs a program in the machine, or has its console open."""
    for path in (*directory.glob("exec.*.lock"), *directory.glob("console.lock")):
        with path.open() as file:
            if is_locked(file):
                return True
    return False


@contextmanager
def _free_port(directory: Path) -> Iterator[int]:
    """Reserve a port that no other command uses while the block runs, and yield its number."""
    for number in range(SESSIONS):
        handle = os.open(directory / f"exec.{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        try:
            yield number
        finally:
            os.close(handle)
        return
    raise DrumheadError(
        ErrorCode.CONFLICT, f"{SESSIONS} programs are already running in {directory.name}; end one first"
    )
