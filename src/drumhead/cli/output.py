"""Output of commands: tables and facts (or JSON) go to stdout, progress and notices to stderr."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from drumhead.text import printable, printable_json, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drumhead.report import Report


STDERR = 2
_NARROWEST = 5
"""Columns below which the library that writes the help never ends, or writes nothing."""


class Printable:
    """A text stream that escapes control characters, because names and messages may come from untrusted sources."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text with all control characters other than line feeds and tabs escaped."""
        return self.stream.write(printable_lines(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def open_closed_streams() -> None:
    """Open standard streams that the caller has closed (``>&-``) on /dev/null.

    Otherwise the next file that is opened gets their number, and programs that this one starts write into it.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - they last as long as the process
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(STDERR, "w")  # noqa: SIM115


def forget_useless_size() -> None:
    """Take a size of the terminal that is none, such as 0, for not told: the help would not end, or be empty."""
    for name in ("COLUMNS", "LINES"):
        text = os.environ.get(name, "80")
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) >= _NARROWEST):
            del os.environ[name]


@contextmanager
def printable_streams() -> Iterator[None]:
    """Print through `Printable` while the context lasts."""
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Printable(sys.stdout), Printable(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept


def _behind(stream: TextIO) -> TextIO:
    return stream.stream if isinstance(stream, Printable) else stream


def print_json(value: Any) -> None:
    """Print records, lists and mappings as indented JSON."""
    print(printable_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns under their headings, as wide as needed. Nothing is truncated, so that output can be searched."""
    table = [list(heads), *([printable(text) for text in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def notice(text: str) -> None:
    """Print a line to stderr, apart from the result of the command."""
    print(text, file=sys.stderr)


def size_text(size: int) -> str:
    """Return a size as qemu-img prints it: ``33 MiB``."""
    number, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"


def complain(sentence: str) -> None:
    """Print an error to stderr. Further lines (the end of a console) are indented, so that none poses as our own."""
    from rich.console import Console  # noqa: PLC0415 - not needed when all goes well
    from rich.markup import escape  # noqa: PLC0415

    console = Console(stderr=True, file=_behind(sys.stderr), highlight=False)
    first, *more = printable_lines(sentence).split("\n")
    shown = "\n".join([first, *(f"    {line.removeprefix('    ')}" for line in more)])
    console.print(f"[red]drumhead:[/red] {escape(shown)}", soft_wrap=True)


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """Show a progress bar (``What 3016 / 3016 [=====] 100.00 % 4s``) on stderr if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield _Lines(what)
        return
    from rich.console import Console  # noqa: PLC0415 - not needed when nobody watches
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[amount]}"),
        BarColumn(),
        TaskProgressColumn("{task.percentage:>6.2f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, file=_behind(sys.stderr))) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(escape(printable(label)), amount="")
            amount = f"{done} / {total}" if total < 1_000_000 else f"{size_text(done)} / {size_text(total)}"
            bars.update(tasks[label], completed=done, total=total or None, amount=amount)

        yield report


class _Lines:
    """Progress for logs and pipes: one line for each item that was packed, and none for downloads."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()

    def __call__(self, label: str, done: int, total: int) -> None:
        if done == total and label.startswith("packing"):
            notice(f"{label}: {done} / {total} files, {self._what} for {time.monotonic() - self._started:.1f} s")
