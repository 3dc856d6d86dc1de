"""Decoders as separate processes: starting them, giving them jobs, and telling what became of one that died."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from safelight.errors import Code, Error
from safelight.worker.decoder.child import Child

if TYPE_CHECKING:
    from types import TracebackType

    from safelight.worker.decoder.contract import Job, Result, Settings

_log = logging.getLogger(__name__)

_BACKOFF = (0.0, 0.2, 1.0, 5.0, 15.0)
"""Seconds before a start, by how many starts have failed in a row."""

_WATCH = 0.25
"""Seconds between two looks at what decoders take."""


class _Seat:
    """The place of one decoder; whoever sits there may change."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.failed_starts = 0
        self.trouble = ""


class ProcessPool:
    """See `decoder.DecoderPool`."""

    def __init__(self, settings: Settings) -> None:
        self.count = settings.count
        self.version = ""
        self.protections: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.escapes: tuple[str, ...] = ()
        self.restarts: Counter[str] = Counter()
        self._settings = settings
        # last in, first out: a decoder that has just worked has its memory at hand
        self._free: asyncio.LifoQueue[_Seat] = asyncio.LifoQueue()
        self._seats = [_Seat() for _ in range(settings.count)]
        self._replacing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._directory = Path()
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            empty = TemporaryDirectory(prefix="decoders-", dir=self._settings.directory, ignore_cleanup_errors=True)
            self._directory = Path(stack.enter_context(empty))
            stack.push_async_callback(self._end)
            async with asyncio.TaskGroup() as starting:
                for seat in self._seats:
                    starting.create_task(self._fill(seat))
            if all(seat.child is None for seat in self._seats):
                raise Error(Code.UNAVAILABLE, f"No decoder process can be started: {self._seats[0].trouble}")
            watching = asyncio.create_task(self._watch(), name="decoder watch")
            stack.callback(watching.cancel)
            self._held = stack.pop_all()
        _log.info("%d decoders ready; %s", self.count, "; ".join(self.protections))
        if self.missing or self.escapes:
            open_ways = [f"a decoder could {escape}" for escape in self.escapes]
            _log.warning("The decoders' sandbox is not complete; missing: %s", "; ".join([*self.missing, *open_ways]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._held.aclose()

    async def process(self, job: Job) -> Result:
        """See `decoder.DecoderPool`."""
        seat, child = await self._take()
        try:
            return await child.run(job)
        finally:
            if child.reusable(self._settings):
                self._free.put_nowait(seat)
            else:
                self._replace(seat)

    async def _take(self) -> tuple[_Seat, Child]:
        while True:
            seat = await self._free.get()
            if seat.child is None:
                self._replace(seat)
                raise Error(Code.UNAVAILABLE, f"No decoder process can be started: {seat.trouble}")
            if seat.child.reusable(self._settings):
                return seat, seat.child
            seat.child.end_reason = "died_idle"
            self._replace(seat)

    def _replace(self, seat: _Seat) -> None:
        if self._closed:
            return
        task = asyncio.create_task(self._refill(seat), name="decoder replacement")
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _refill(self, seat: _Seat) -> None:
        if seat.child is not None:
            child, seat.child = seat.child, None
            self.restarts[child.end_reason] += 1
            await child.end()
        await asyncio.sleep(_BACKOFF[min(seat.failed_starts, len(_BACKOFF) - 1)])
        await self._fill(seat)

    async def _fill(self, seat: _Seat) -> None:
        """Start a decoder there. If none at all works, empty seats are given out: their takers hear why."""
        try:
            seat.child, ready = await Child.start(self._settings, self._directory)
        except (Error, OSError) as error:
            seat.failed_starts += 1
            seat.trouble = str(error)
            _log.error("a decoder did not start, %d times in a row: %s", seat.failed_starts, error)
            if any(other.child is not None for other in self._seats):
                self._replace(seat)
                return
        else:
            seat.failed_starts = 0
            self.version, self.protections = ready.version, ready.protections
            self.missing, self.escapes = ready.missing, ready.escapes
        self._free.put_nowait(seat)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH)
            for seat in self._seats:
                if seat.child is not None:
                    seat.child.watch(self._settings)

    async def _end(self) -> None:
        self._closed = True
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(seat.child.end() for seat in self._seats if seat.child is not None))
        for seat in self._seats:
            seat.child = None
