"""Cache values for a few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_KNOWN = 10_000


class Fresh(Generic[T]):
    """Values by name, each read again once it is older than `seconds`; concurrent requests share one read.

    So every master refuses a revoked key after that time, and a flood of requests costs one read.
    """

    def __init__(self, read: Callable[[str], Awaitable[T]], *, seconds: float = 2.0) -> None:
        self._read = read
        self._seconds = seconds
        self._known: OrderedDict[str, tuple[float, asyncio.Task[T]]] = OrderedDict()

    async def get(self, name: str) -> T:
        """Return a value. Raises what reading it raises."""
        now = time.monotonic()
        at, reading = self._known.get(name, (0.0, None))
        if reading is None or now - at > self._seconds:
            reading = asyncio.create_task(self._start(name), name="fresh")
            reading.add_done_callback(_seen)
            self._known[name] = now, reading
            self._known.move_to_end(name)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return await asyncio.shield(reading)

    def forget(self, name: str) -> None:
        """Read a value again when it is next requested."""
        self._known.pop(name, None)

    async def _start(self, name: str) -> T:
        try:
            return await self._read(name)
        except BaseException:
            self.forget(name)
            raise


def _seen(reading: asyncio.Task[T]) -> None:
    if not reading.cancelled():
        reading.exception()  # the callers got the error, or have left
