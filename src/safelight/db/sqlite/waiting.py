"""Calls that wait: a line for leases, and a bell for everything that many may hear."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush

from safelight.wire import Lease, LeaseRequest


class _Waiter:
    def __init__(self, ticket: int, request: LeaseRequest) -> None:
        self.ticket = ticket
        self.request = request
        self.future: asyncio.Future[list[Lease]] = asyncio.get_running_loop().create_future()
        self.claiming = False
        self.late = False

    def __lt__(self, other: _Waiter) -> bool:
        return self.ticket < other.ticket


class LeaseLine:
    """Workers that wait for tasks, first come first served; only as many are served as there are tasks for."""

    def __init__(
        self, claim: Callable[[LeaseRequest], asyncio.Future[list[Lease]]], hand_back: Callable[[list[Lease]], None]
    ) -> None:
        self._claim = claim
        self._hand_back = hand_back
        self._line: list[_Waiter] = []
        self._tickets = itertools.count()
        self._available = 0
        self._promised = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._line)

    async def wait(self, request: LeaseRequest) -> list[Lease]:
        """Stand in the line until it is one's turn or `request.wait` seconds are over."""
        if self._closed:
            return []
        waiter = _Waiter(next(self._tickets), request)
        heappush(self._line, waiter)
        self.serve(self._available)
        try:
            await asyncio.wait({waiter.future}, timeout=request.wait)
            waiter.late = True
            if waiter.future.done() or waiter.claiming:
                return await waiter.future
        except asyncio.CancelledError:
            waiter.future.cancel()
            raise
        else:
            return []
        finally:
            if waiter in self._line:
                self._line.remove(waiter)
                # A heap stays one only if it is told.
                self._line.sort()

    def serve(self, available: int) -> None:
        """Let the first claim what may be leased now."""
        self._available = available
        while self._line and self._available > self._promised:
            waiter = heappop(self._line)
            waiter.claiming = True
            self._promised += waiter.request.n
            self._claim(waiter.request).add_done_callback(partial(self._claimed, waiter))

    def _claimed(self, waiter: _Waiter, claim: asyncio.Future[list[Lease]]) -> None:
        waiter.claiming = False
        self._promised -= waiter.request.n
        error = claim.exception()
        leases = [] if error else claim.result()
        if waiter.future.done():
            self._hand_back(leases)
        elif error:
            waiter.future.set_exception(error)
        elif leases or waiter.late or self._closed:
            waiter.future.set_result(leases)
        else:
            heappush(self._line, waiter)
        self.serve(self._available)

    def close(self) -> None:
        """Send everybody away."""
        self._closed = True
        for waiter in self._line:
            if not waiter.future.done():
                waiter.future.set_result([])
        self._line.clear()


class Bell:
    """Wakes whoever waits. `rung` counts, so that a ring between a look and the wait is not missed."""

    def __init__(self) -> None:
        self.rung = 0
        self._closed = False
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, since: int, seconds: float) -> bool:
        """Wait for a ring after the count `since`; False when the time is over or nothing more will come."""
        if self._closed or seconds <= 0:
            return False
        if self.rung != since:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            self._waiting.discard(future)
        return future.done() and not self._closed

    def ring(self) -> None:
        """Wake everybody who waits."""
        self.rung += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closed = True
        self.ring()
