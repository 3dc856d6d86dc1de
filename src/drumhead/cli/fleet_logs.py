"""Print the logs of a fleet's machines. Each line begins with the name of its machine."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from drumhead.errors import host_error
from drumhead.fleet.store import FleetStore
from drumhead.home import find_home
from drumhead.machine.instances import Instances
from drumhead.machine.stop import wait_machine
from drumhead.machine.watch import follow, read_from, tail_offset, watching
from drumhead.text import printable_lines, shown_output, write_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STDOUT, STDERR = 1, 2
LONGEST_LINE = 1 << 16
"""Bytes of a line that has not ended after which they are printed as a line of their own."""
MAX_NOTICES = 1000
"""The number of notices that wait for a terminal that takes none (Ctrl-S). Further ones are dropped."""
LAST_WORDS_TIME = 1.0
"""Seconds that a terminal has to take the last notice."""


class Printer:
    """A thread that prints, so that a reader that takes nothing (Ctrl-S, a pager) does not stop the event loop.

    It writes to the descriptors, because Python would wait at its end for the lock of a stream in which a thread waits.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[int, bytes, Callable[[OSError | None], None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="printer", daemon=True).start()

    def _run(self) -> None:
        while True:
            handle, data, settle = self._work.get()
            failure = None
            try:
                left = memoryview(shown_output(data) if handle == STDOUT else data)
                while left:
                    left = left[os.write(handle, left) :]
            except OSError as error:
                failure = error
            settle(failure)

    async def print(self, data: bytes, handle: int = STDOUT) -> None:
        """Print to a descriptor and return when it has taken everything. Raises OSError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(failure: OSError | None) -> None:
            if failure and not done.done():
                done.set_exception(failure)
            elif not done.done():
                done.set_result(None)

        def settle(failure: OSError | None) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, failure)

        self._work.put((handle, data, settle))
        await done

    def notice(self, text: str) -> None:
        """Print a line to stderr without waiting for it."""
        if self._work.qsize() < MAX_NOTICES:
            self._work.put((STDERR, _line(text), lambda _failure: None))

    async def last_notice(self, text: str) -> None:
        """Print a line to stderr and wait for it, but not for a terminal that takes nothing."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_TIME):
                await self.print(_line(text), STDERR)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Print the records of the log as notices while the context lasts."""
        root, handler = logging.getLogger(), _Handler(self)
        kept, root.handlers = root.handlers, [handler]
        try:
            yield
        finally:
            root.handlers = kept


class _Handler(logging.Handler):
    """Let a printer print the messages of the log."""

    def __init__(self, printer: Printer) -> None:
        super().__init__()
        self._printer = printer

    def emit(self, record: logging.LogRecord) -> None:
        self._printer.notice(self.format(record))


def _line(text: str) -> bytes:
    return f"{printable_lines(text)}\n".encode(sys.stderr.encoding, "replace")


async def print_logs(name: str, *, follow: bool, tail: int | None) -> None:
    """Print the logs of a fleet's machines, or their last `tail` lines. With `follow`, keep printing."""
    store = FleetStore(find_home(), name)
    if follow:
        await follow_logs(store, Printer(), tail=tail)
        return
    for instance in store.instances():
        machine, rest = instance.launch.spec.name, b""
        path = Instances(store.home).directory(machine) / "log"
        for part in read_from(path, 0 if tail is None else tail_offset(path, tail)):
            lines, rest = whole_lines(rest + part)
            write_output(_named(machine, lines))
        write_output(_named(machine, rest))


async def print_while_read(store: FleetStore, printer: Printer) -> None:
    """Print what a fleet's machines write from now on, until nobody reads it. The fleet goes on all the same."""
    try:
        await follow_logs(store, printer, tail=0)
    except OSError as error:
        reason = "Nobody reads the logs" if isinstance(error, BrokenPipeError) else host_error(error).message
        printer.notice(
            f"{reason}; they are printed no more. The fleet goes on: `drumhead logs --follow {store.name}` shows them, "
            "and Ctrl-C stops the machines."
        )


async def follow_logs(store: FleetStore, printer: Printer, *, tail: int | None) -> None:
    """Follow the logs of all machines of the fleet, including new ones, from their last `tail` lines on.

    Return when the fleet has no supervisor and no running machine. Raises OSError if nothing can be printed.
    """
    instances = Instances(store.home)
    offsets: dict[str, int] = {}
    for name in [] if tail is None else [one.launch.spec.name for one in store.instances()]:
        offsets[name] = tail_offset(instances.directory(name) / "log", tail or 0)
    following: dict[str, asyncio.Task[None]] = {}
    try:
        with watching(store.directory) as changed:
            changed.set()
            async with asyncio.TaskGroup() as group:
                while True:
                    if changed.is_set():
                        changed.clear()
                        for machine in [one.launch.spec.name for one in store.instances()]:
                            if machine not in following or following[machine].done():
                                one = _follow_log(instances, machine, offsets, printer)
                                following[machine] = group.create_task(one)
                    if not store.supervisor() and not any(one.pid for one in store.instances()):
                        break
                    wake = group.create_task(changed.wait())
                    ends = [task for task in following.values() if not task.done()]
                    await asyncio.wait({wake, *ends}, return_when=asyncio.FIRST_COMPLETED)
                    wake.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _follow_log(instances: Instances, machine: str, offsets: dict[str, int], printer: Printer) -> None:
    rest = b""
    path = instances.directory(machine) / "log"
    with suppress(FileNotFoundError):  # the machine was deleted
        following = follow(path, offset=offsets.get(machine, 0), until=wait_machine(instances, machine))
        async for end, part in following:
            offsets[machine] = end
            lines, rest = whole_lines(rest + part)
            await printer.print(_named(machine, lines))
        await printer.print(_named(machine, rest))


def whole_lines(text: bytes) -> tuple[bytes, bytes]:
    """Return the whole lines of a text and the rest, which is empty if it would become too long."""
    head, end, rest = text.rpartition(b"\n")
    return (text, b"") if len(rest) > LONGEST_LINE else (head + end, rest)


def _named(machine: str, text: bytes) -> bytes:
    """Return the lines of a text, each with the name of its machine."""
    name = f"{machine} | ".encode()
    return b"".join(name + line + b"\n" for line in text.splitlines())
