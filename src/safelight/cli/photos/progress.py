"""Show the progress of an upload on a terminal: one bar for the bytes, one for the tasks. Elsewhere draw nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console
from rich.control import Control
from rich.live_render import LiveRender
from rich.markup import escape

from safelight.cli.printing import err, say
from safelight.untrusted.text import printable

_BAR = 20
"""Columns of a bar: few, so that lines seldom wrap when the terminal becomes narrower."""


class _Reflowing(LiveRender):
    """Erases the rows that the last lines take now, which are more if the terminal became narrower and wrapped them."""

    def __init__(self, console: Console) -> None:
        super().__init__("", vertical_overflow="ellipsis")
        self._console = console

    def position_cursor(self) -> Control:
        """Return the codes that erase what was drawn, before it is drawn again."""
        with self._as_wrapped():
            return super().position_cursor()

    def restore_cursor(self) -> Control:
        """Return the codes that erase what was drawn, for good."""
        with self._as_wrapped():
            return super().restore_cursor()

    @contextmanager
    def _as_wrapped(self) -> Iterator[None]:
        drawn = self._shape
        if drawn is not None:
            width, height = drawn
            self._shape = width, height * max(1, math.ceil(width / self._console.width))
        try:
            yield
        finally:
            self._shape = drawn


class Progress:
    """Bars on stderr; saved files are listed on stdout, above the bars."""

    def __init__(self, *, photos: int, size: int, waits: bool, quiet: bool = False) -> None:
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=_BAR),
            progress.TextColumn("{task.fields[amount]}", justify="right"),
            progress.TimeElapsedColumn(),
            console=err,
            disable=not err.is_terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bars.live._live_render = _Reflowing(err)  # noqa: SLF001 - rich counts lines, not the rows that they take
        self._photos = photos
        self._quiet = quiet
        self._start = time.monotonic()
        self._end: float | None = None
        self._size = size
        self._failed = 0
        self._sent = self._bars.add_task("Uploading ", total=size, amount="")
        self._done = self._bars.add_task("Processing", total=photos, amount="") if waits else None
        self.sent(0)
        self._show_done(0)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def seconds(self) -> float:
        """Seconds from the start to the end, or to now."""
        return (self._end or time.monotonic()) - self._start

    def sent(self, count: int) -> None:
        """Count bytes that were sent; negative if a photo is sent again."""
        self._bars.advance(self._sent, count)
        done = self._bars.tasks[self._sent].completed
        self._bars.update(self._sent, amount=f"{done / 1e6:.1f}/{self._size / 1e6:.1f} MB")

    def finished(self) -> None:
        """Count a task that has finished."""
        self._show_done(1)

    def failed(self, photo: Path, why: str) -> None:
        """Print why a photo failed."""
        self._failed += 1
        if err.is_terminal:
            err.print(f"[red]failed[/red] {escape(printable(str(photo)))}: {escape(printable(why))}", soft_wrap=True)
        self._show_done(1)

    def note(self, sentence: str) -> None:
        """Print what people should know meanwhile."""
        err.print(f"[yellow]{escape(printable(sentence))}[/yellow]", soft_wrap=True)

    def saved(self, path: Path) -> None:
        """Print the path of a saved file."""
        if not self._quiet:
            say(str(path))

    def end(self) -> None:
        """Remove the bars."""
        if self._end is None:
            self._end = time.monotonic()
            self._bars.stop()

    def _show_done(self, count: int) -> None:
        if self._done is not None:
            self._bars.advance(self._done, count)
            done = int(self._bars.tasks[self._done].completed)
            failed = f", {self._failed} failed" if self._failed else ""
            self._bars.update(self._done, amount=f"{done}/{self._photos}{failed}")
