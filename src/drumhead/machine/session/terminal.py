"""Connect this process's terminal to programs and consoles in machines."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import termios
import threading
import tty
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.qemu.channel import connect
from drumhead.machine.session.protocol import Terminal, open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

    from drumhead.machine.session.protocol import Session
    from drumhead.records import Command

CHUNK = 1 << 15
LEAVE = b"\x1d"
"""Ctrl-], which leaves a console, as in telnet and virsh."""
QUIET = 3.0
"""Seconds without output after which a console whose input has ended is left. An emulated shell starts in about one."""

FORCING = 3
"""How many signals end a session whose program ignores them, as with `docker run`. The program is hung up on."""
SIGTERM_GRACE = 10.0
"""Seconds after a SIGTERM in which the program may end, before the session does: `timeout` sends one and no more."""


def terminal_size() -> Terminal:
    try:
        columns, lines = os.get_terminal_size(sys.stdin.fileno())
    except OSError:
        columns, lines = 80, 24
    return Terminal(rows=lines, cols=columns)


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Put the terminal into raw mode, so that every key, even Ctrl-C, goes to the machine.

    Without a terminal, do nothing.
    """
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin, termios.TCSADRAIN)  # keeps input that was typed ahead
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@asynccontextmanager
async def pumping_input(send: Callable[[bytes], Awaitable[None]]) -> AsyncIterator[None]:
    """Pass stdin to `send` in chunks (an empty one at the end) while the block runs.

    A thread reads stdin, because stdin may be a file, which an event loop cannot wait for.
    """
    loop = asyncio.get_running_loop()

    async def give(data: bytes) -> None:
        await send(data)

    def read() -> None:
        try:
            while True:
                data = os.read(sys.stdin.fileno(), CHUNK)
                asyncio.run_coroutine_threadsafe(give(data), loop).result()
                if not data:
                    return
        except (OSError, RuntimeError, CancelledError):  # not asyncio's, which is another class
            return  # the session is over

    threading.Thread(target=read, daemon=True, name="stdin").start()
    yield


async def run_session(directory: Path, command: Command, *, terminal: bool) -> int:
    """Run a program in a machine with this process's stdin, stdout and stderr. Return its exit status."""
    size = terminal_size() if terminal else None
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    signals: list[int] = []
    forced = asyncio.Event()
    copying = asyncio.current_task()

    def later(call: Coroutine[None, None, None]) -> None:
        tasks.add(loop.create_task(call))

    def force() -> None:
        forced.set()
        if copying:
            copying.cancel()

    def pass_on(number: int) -> None:
        signals.append(number)
        if len(signals) == FORCING:
            force()
            return
        later(session.signal(number))
        if number == signal.SIGTERM:
            loop.call_later(SIGTERM_GRACE, force)

    async with open_session(directory, command, size) as session:
        if terminal:
            loop.add_signal_handler(signal.SIGWINCH, lambda: later(session.resize(terminal_size())))
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, pass_on, number)
        with raw_terminal() if terminal else nullcontext():
            async with pumping_input(session.send_input):
                try:
                    return await _copy_output(session)
                except asyncio.CancelledError:
                    if not forced.is_set():
                        raise
                    return 128 + signals[-1]


async def _copy_output(session: Session) -> int:
    async for kind, payload in session.frames():
        match kind:
            case "output":
                await asyncio.to_thread(_write, sys.stdout.fileno(), payload)
            case "errors":
                await asyncio.to_thread(_write, sys.stderr.fileno(), payload)
            case "exit":
                return payload[0]
    return 0


@contextmanager
def claiming_console(directory: Path) -> Iterator[None]:
    """Keep other commands from the console of a machine, because QEMU serves one client and lets the next one wait.

    Raises CONFLICT.
    """
    handle = os.open(directory / "console.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another command has the console of {directory.name} open; leave it there (Ctrl-]) first"
            raise DrumheadError(ErrorCode.CONFLICT, message) from error
        yield
    finally:
        os.close(handle)


async def run_console(directory: Path) -> None:
    """Attach the terminal to the machine's serial console until Ctrl-], the end of input or the machine's end.

    After the end of input (``echo uptime | drumhead console web``), wait until the console has been quiet for `QUIET`.
    Raises OSError if stdout cannot be written.
    """
    left, ended, shown = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with connect(directory, "console.sock") as (reader, writer):

        async def send(data: bytes) -> None:
            keys, leave, _ = data.partition(LEAVE)
            writer.write(keys)
            await writer.drain()
            if leave:
                left.set()
            if not data:
                ended.set()

        async def receive() -> bytes:
            try:
                return await reader.read(CHUNK)
            except OSError:  # QEMU ended before it took all keys
                return b""

        async def copy() -> None:
            while data := await receive():
                shown.set()
                await asyncio.to_thread(_write, sys.stdout.fileno(), data)

        with raw_terminal():
            async with pumping_input(send):
                copying, leaving = asyncio.create_task(copy()), asyncio.create_task(_leave(left, ended, shown))
                await asyncio.wait({copying, leaving}, return_when=asyncio.FIRST_COMPLETED)
                leaving.cancel()
                if copying.done():
                    copying.result()
                copying.cancel()


async def _leave(left: asyncio.Event, ended: asyncio.Event, shown: asyncio.Event) -> None:
    """Wait until the user has left, or until the input has ended and nothing more is shown."""
    leaving, ending = asyncio.create_task(left.wait()), asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        ending.cancel()
    if left.is_set():
        return
    with suppress(TimeoutError):
        while True:
            shown.clear()
            async with asyncio.timeout(QUIET):
                await shown.wait()


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
