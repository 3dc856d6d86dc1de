"""The queue and the workers, live in the terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from safelight.cli import service_time
from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import STATE_STYLE, clock, duration, err, out, print_json, table, workers_table
from safelight.cli.system.storage_use import room, storage_use
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import ENDED, Event, State, StorageInfo, Summary

_MEASURED_EVERY = 5.0
"""Seconds between looks at the disk."""
_WINDOW = 10.0
"""Seconds over which the rate is taken."""


class View:
    """The state that `top` shows, and how it is drawn."""

    def __init__(self) -> None:
        self.summary: Summary | None = None
        self.storage: StorageInfo | None = None
        self.trouble = ""
        self._ends: deque[float] = deque()
        self._recent: deque[Event] = deque(maxlen=100)

    def take(self, events: list[Event]) -> None:
        """Add new events."""
        for event in events:
            self._recent.appendleft(event)
            if event.state in ENDED and event.kind not in ("deleted", "excused"):
                self._ends.append(event.at)

    def rate(self) -> float:
        """Return how many tasks ended per second lately."""
        now = service_time.now()
        while self._ends and self._ends[0] < now - _WINDOW:
            self._ends.popleft()
        return len(self._ends) / _WINDOW

    def render(self, console: Console) -> Group:
        """Draw everything to fit the height of the terminal."""
        summary = self.summary or Summary(tasks={})
        parts: list[object] = [self._headline(summary), Text()]
        workers = workers_table(summary)
        parts.append(Text(workers, "yellow") if isinstance(workers, str) else workers)
        room = console.height - len(summary.workers) - 8
        recent = [self._line(event) for event in list(self._recent)[: max(room, 3)]]
        parts += [Text(), table("WHEN", "TASK", "RECIPE", "WHAT", "TOOK", "WHY", rows=recent, right=("TOOK",))]
        return Group(*parts)  # type: ignore[arg-type]

    def _headline(self, summary: Summary) -> Text:
        line = Text()
        for state in (State.WAITING, State.WORKING, State.FINISHED, State.FAILED, State.QUARANTINED, State.CANCELLED):
            count = summary.tasks.get(state.name.lower(), 0)
            line.append(f"{count:,} ", f"bold {STATE_STYLE[state]}").append(f"{state.name.lower()}   ")
        line.append(f"\n{self.rate():.1f} a second")
        if summary.available:
            line.append(f"   oldest waits {duration(summary.oldest_waiting)}")
        if summary.delayed:
            line.append(f"   {summary.delayed:,} delayed")
        if summary.paused:
            line.append("   paused", "yellow")
        if summary.paused_recipes:
            line.append(f"   paused: {', '.join(sorted(summary.paused_recipes))}", "yellow")
        line.append(room(self.storage, "   "))
        if self.trouble:
            line.append(f"   {self.trouble}", "red")
        return line

    def _line(self, event: Event) -> tuple[str, str, str, Text, str, str]:
        when = clock(event.at)
        took = f"{event.seconds:.2f} s" if event.seconds else ""
        what = Text(event.kind or event.state.name.lower(), STATE_STYLE[event.state])
        return when, event.task, event.recipe, what, took, event.failure.detail if event.failure else ""


async def top_command(
    *,
    interval: Annotated[float, Parameter(name=["--interval", "-i"])] = 1.0,
    once: Annotated[bool, Parameter(negative="")] = False,
    where: Where = HERE,
) -> None:
    """Show the queue and the workers, live, until `q` or Ctrl-C.

    Parameters
    ----------
    interval:
        The number of seconds between updates.
    once:
        Show them once and exit.
    """
    view = View()
    async with master(where, retry_for=2.0) as client:
        view.summary, view.storage = await client.summary(), await storage_use(client)
        page = await client.changes(max(0, view.summary.seq - 50))
        view.take(page.events)
        if where.json:
            print_json({"summary": view.summary, "storage": view.storage, "events": page.events, "rate": view.rate()})
            return
        if once or not out.is_terminal:
            out.print(view.render(out))
            return
        await _live(client, view, page.last, interval)


async def _live(client: Client, view: View, after: int, interval: float) -> None:
    with _quit_key() as quit_pressed, Live(view.render(out), console=out, screen=True, auto_refresh=False) as live:
        beside = [asyncio.create_task(_follow(client, view, after)), asyncio.create_task(_measure(client, view))]
        try:
            while not quit_pressed.is_set():
                try:
                    view.summary = await client.summary()
                    view.trouble = ""
                except Error as error:
                    view.trouble = error.detail
                live.update(view.render(out), refresh=True)
                with suppress(TimeoutError):
                    await asyncio.wait_for(quit_pressed.wait(), max(interval, 0.1))
        finally:
            for task in beside:
                task.cancel()
            err.show_cursor()


@contextmanager
def _quit_key() -> Iterator[asyncio.Event]:
    """Yield an event that is set when somebody presses `q` on the terminal."""
    pressed = asyncio.Event()
    if not sys.stdin.isatty():
        yield pressed
        return
    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        if {b"q", b"Q", b""} & {os.read(terminal, 1)}:
            pressed.set()

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSANOW)  # the default would drop what was typed while the command started
    loop.add_reader(terminal, read)
    try:
        yield pressed
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


async def _measure(client: Client, view: View) -> None:
    """Ask for storage's use in the background, so that a storage that does not answer delays nothing else."""
    while True:
        await asyncio.sleep(_MEASURED_EVERY)
        view.storage = await storage_use(client)


async def _follow(client: Client, view: View, after: int) -> None:
    while True:
        try:
            page = await client.changes(after, wait=20.0)
        except Error:
            await asyncio.sleep(1.0)
            continue
        view.take(page.events)
        after = page.last
