"""Print tables for people, JSON for programs, and errors as one sentence."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from safelight.cli import service_time
from safelight.errors import Error, plural
from safelight.untrusted.text import printable, printable_json, printable_lines
from safelight.wire import DEFAULT_TENANT, State, Summary, Task, WorkerSeen

STATE_STYLE = {
    State.UPLOADING: "dim",
    State.WAITING: "yellow",
    State.WORKING: "cyan",
    State.FINISHED: "green",
    State.FAILED: "red",
    State.QUARANTINED: "magenta",
    State.CANCELLED: "dim",
}

_SILENT_AFTER = 30.0
"""Seconds without a request after which a worker counts as silent: it asks for leases, or extends them, much more
often.
"""

_WIDE = 10_000
"""Columns of output that is not a terminal (a pipe or a file), so that nothing is cut off."""
_NARROW = 24
"""Columns of a terminal that are left to the widest column of a table that does not fit."""


class _PlainConsole(Console):
    """A console on which only this program sets colours and moves the cursor: control characters become escapes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))

    def on_broken_pipe(self) -> None:
        """Raise what ends the command with its status. rich would exit, which stops the event loop amid its tasks.

        If nobody reads the errors, the status of the command still tells.
        """
        if not self.stderr:
            raise BrokenPipeError


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDE
    return _PlainConsole(stderr=stderr, width=width, highlight=False, soft_wrap=False)


out = _console()
err = _console(stderr=True)


def complain(sentence: str, *, program: str = "safelight") -> None:
    """Print an error on stderr."""
    err.print(f"[red]{program}:[/red] {escape(printable(sentence))}", soft_wrap=True)


class Waiting:
    """Says on stderr why a command waits: once in a while, since many photos may wait for the same service."""

    def __init__(self) -> None:
        self._quiet_until = -math.inf

    def __call__(self, error: Error, left: float) -> None:
        """Print the failure after which something is tried again, for `left` seconds at most."""
        if (now := time.monotonic()) < self._quiet_until:
            return
        self._quiet_until = now + left
        sentence = f"{error.detail} Trying again for {duration(left)}."
        err.print(f"[yellow]{escape(printable(sentence))}[/yellow]", soft_wrap=True)


def say(text: str, **options: Any) -> None:
    """Print one line of text as it is, with control characters escaped."""
    out.print(printable(text), markup=False, soft_wrap=True, **options)


def path_text(path: Path) -> str:
    """Write a path for JSON; bytes of a name that are not UTF-8 become replacement characters."""
    return os.fsencode(path).decode(errors="replace")


def print_json(value: object) -> None:
    """Print one JSON document on stdout at once, since a reader may wait for it, or be gone."""
    sys.stdout.write(printable_json(msgspec.json.format(msgspec.json.encode(value)).decode()) + "\n")
    sys.stdout.flush()


def table(*columns: str, rows: Iterable[Sequence[str | Text]], right: Sequence[str] = (), wrap: bool = False) -> Table:
    """Make a plain table without lines, which people can read and programs can cut.

    If the terminal is too narrow, the last column is cut off, or wrapped with `wrap`. If that is not enough, the widest
    one is cut off too, such as that of a photo with a very long name, since rich would leave out all others.
    """
    cells = [[cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row] for row in rows]
    widths = [max([len(name), *(row[n].cell_len for row in cells)]) for n, name in enumerate(columns[:-1])]
    beyond = sum(widths) + 2 * len(widths) + len(columns[-1]) - out.width
    if widths and beyond > 0:
        widest = widths.index(max(widths))
        widths[widest] = max(min(_NARROW, widths[widest]), widths[widest] - beyond)
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, show_header=any(columns))
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold" if wrap else "ellipsis",
            no_wrap=not (last and wrap),
            min_width=None if last else widths[index],
            max_width=None if last else widths[index],
        )
    for row in cells:
        made.add_row(*row)
    return made


def state_text(state: State) -> Text:
    """Return a state's name in its colour."""
    return Text(state.name.lower(), STATE_STYLE[state])


def size(count: float) -> str:
    """Write bytes for people: `4.2 MB`. What rounding would make a thousand is one of the next unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Write a time span for people: `0.4 s`, `3 min`, `2 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def clock(moment: float) -> str:
    """Write the local time of day of a Unix time. The time comes from a server and may be any number."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(moment))
    except (OverflowError, ValueError, OSError):
        return "?"


def ago(moment: float) -> str:
    """Write how long ago a Unix time is."""
    return f"{duration(max(0.0, service_time.now() - moment))} ago"


def reason(task: Task) -> str:
    """Return the reason for a task's state, or "" if it needs none."""
    if task.failure is not None:
        return task.failure.detail
    return "same photo and recipe as before" if task.reused else ""


def _is_silent(seen: WorkerSeen) -> bool:
    return service_time.now() - seen.last_seen > _SILENT_AFTER


def worker_state(seen: WorkerSeen) -> Text:
    """Return a worker's state in its colour. A worker that has not sent a request for a while is silent."""
    if _is_silent(seen):
        return Text("silent", "red")
    if seen.draining:
        return Text("draining", "yellow") if seen.holding else Text("drained", "yellow")
    return Text("busy", "cyan") if seen.worker.busy else Text("idle", "green")


def held_up(summary: Summary, recipe: str) -> str:
    """Return what keeps photos of a recipe from being processed, or an empty text if nothing is known to."""
    if summary.paused:
        return "The queue is paused: photos wait until `safelight resume`."
    if recipe in summary.paused_recipes:
        return f"The recipe {recipe} is paused: its photos wait until `safelight resume --recipe {recipe}`."
    if all(seen.draining or _is_silent(seen) for seen in summary.workers) and not summary.workers_hidden:
        return "No worker is known that takes tasks; see `safelight workers`."
    return ""


def workers_table(summary: Summary) -> Table | str:
    """Make a table of workers, with a column of names if any worker has a name."""
    workers = summary.workers
    if summary.workers_hidden:
        return f"Workers work for every tenant; only users of the tenant {DEFAULT_TENANT} see them."
    if not workers:
        return "There are no workers. Start one with `safelight worker`."
    rows = [
        (seen.worker.id, seen.worker.name, worker_state(seen), f"{seen.worker.busy}/{seen.worker.slots}",
         str(seen.holding), ago(seen.last_seen), seen.worker.isolation, seen.worker.engine)
        for seen in workers
    ]  # fmt: skip
    columns = ["WORKER", "NAME", "STATE", "BUSY", "HOLDS", "SEEN", "ISOLATION", "ENGINE"]
    if not any(seen.worker.name for seen in workers):
        columns.remove("NAME")
        rows = [(row[0], *row[2:]) for row in rows]  # type: ignore[misc]
    return table(*columns, rows=rows, right=("BUSY", "HOLDS", "SEEN"))


def counted(n: int, noun: str) -> str:
    """Write `1 photo`, `2 photos`."""
    return f"{n:,} {plural(n, noun)}"
