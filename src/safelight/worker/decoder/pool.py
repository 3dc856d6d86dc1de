"""A pool of decoder processes, which starts them, gives them jobs, and replaces those that end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from safelight import background
from safelight.errors import Error, lacks_memory
from safelight.worker.decoder.child import Child, UnreadError
from safelight.worker.decoder.contract import NoDecoderError

if TYPE_CHECKING:
    from types import TracebackType

    from safelight.worker.decoder.contract import Job, Result, Settings

_log = logging.getLogger(__name__)

_BACKOFF = (0.0, 0.2, 1.0, 5.0, 15.0)
"""Seconds before a start, by the number of failed starts in a row."""

_UNREAD = 3
"""The most decoders that a photo is sent to because each ended before it had read it."""

_WATCH, _WATCH_IDLE = 0.25, 2.0
"""Seconds between two checks of the decoders' usage, while one is busy and while none is."""


class _Slot:
    """The place of one decoder in the pool."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.failed_starts = 0
        self.reason = ""


class ProcessPool:
    """See `contract.DecoderPool`."""

    def __init__(self, settings: Settings) -> None:
        self.count = settings.count
        self.version = ""
        self.protections: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.escapes: tuple[str, ...] = ()
        self.restarts: Counter[str] = Counter()
        self._settings = settings
        # last in, first out: the memory of a decoder that has just worked is still in the caches
        self._free: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        self._slots = [_Slot() for _ in range(settings.count)]
        self._replacing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._begun = asyncio.Event()
        """Set when a photo begins, since then the next check must be soon."""
        self._directory = Path()
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            empty = TemporaryDirectory(prefix="decoders-", dir=self._settings.directory, ignore_cleanup_errors=True)
            self._directory = Path(stack.enter_context(empty))
            stack.push_async_callback(self._end)
            async with asyncio.TaskGroup() as starting:
                for slot in self._slots:
                    starting.create_task(self._fill(slot))
            if all(slot.child is None for slot in self._slots):
                raise NoDecoderError(self._slots[0].reason)
            await stack.enter_async_context(background.running(self._watch, "decoder watch"))
            self._held = stack.pop_all()
        _log.info("%d decoders are ready; %s", self.count, "; ".join(self.protections))
        if self.missing or self.escapes:
            open_ways = [f"a decoder could {escape}" for escape in self.escapes]
            _log.warning("The decoders' sandbox is not complete; missing: %s", "; ".join([*self.missing, *open_ways]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._held.aclose()

    async def process(self, job: Job) -> Result:
        """See `contract.DecoderPool`."""
        for _ in range(_UNREAD):
            slot, child = await self._take()
            self._begun.set()
            try:
                return await child.run(job)
            except UnreadError:
                if self._closed:
                    raise
                child.end_reason = "died_idle"
            finally:
                if child.reusable(self._settings):
                    self._free.put_nowait(slot)
                else:
                    self._replace(slot)
        raise NoDecoderError(f"{_UNREAD} in a row ended before they had read a photo.")

    async def ready(self) -> bool:
        """See `contract.DecoderPool`."""
        try:
            slot, _ = await self._take()
        except NoDecoderError:
            return False
        self._free.put_nowait(slot)
        return True

    async def _take(self) -> tuple[_Slot, Child]:
        while True:
            slot = await self._free.get()
            if slot.child is None:
                self._replace(slot)
                raise NoDecoderError(slot.reason)
            if slot.child.reusable(self._settings):
                return slot, slot.child
            slot.child.end_reason = "died_idle"
            self._replace(slot)

    def _replace(self, slot: _Slot) -> None:
        if self._closed:
            return
        refilling = background.again(partial(self._refill, slot), "decoder replacement")
        task = asyncio.create_task(refilling, name="decoder replacement")
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _refill(self, slot: _Slot) -> None:
        if slot.child is not None:
            child, slot.child = slot.child, None
            self.restarts[child.end_reason] += 1
            await child.end()
        await asyncio.sleep(_BACKOFF[min(slot.failed_starts, len(_BACKOFF) - 1)])
        await self._fill(slot)

    async def _fill(self, slot: _Slot) -> None:
        """Start a decoder in a slot. If no decoder works at all, release the empty slot with the reason."""
        try:
            slot.child, ready = await Child.start(self._settings, self._directory)
        except (Error, OSError, MemoryError) as error:
            slot.failed_starts += 1
            slot.reason = _reason(error)
            _log.error("A decoder did not start (failed starts in a row: %d): %s", slot.failed_starts, slot.reason)
            if any(other.child is not None for other in self._slots):
                self._replace(slot)
                return
        else:
            slot.failed_starts = 0
            self.version, self.protections = ready.version, ready.protections
            self.missing, self.escapes = ready.missing, ready.escapes
        self._free.put_nowait(slot)

    async def _watch(self) -> None:
        while True:
            if any(slot.child is not None and slot.child.busy for slot in self._slots):
                await asyncio.sleep(_WATCH)
            else:
                self._begun.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WATCH_IDLE):
                        await self._begun.wait()
            for slot in self._slots:
                if slot.child is not None:
                    slot.child.watch(self._settings)

    async def _end(self) -> None:
        self._closed = True
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(slot.child.end() for slot in self._slots if slot.child is not None))
        for slot in self._slots:
            slot.child = None


def _reason(error: Error | OSError | MemoryError) -> str:
    """Return as a sentence why a decoder did not start."""
    match error:
        case Error():
            return error.detail
        case OSError(strerror=str()) if not lacks_memory(error):
            return f"{error.strerror}{f': {error.filename}' if error.filename else ''}."
        case _:
            return "The worker has no memory left."
