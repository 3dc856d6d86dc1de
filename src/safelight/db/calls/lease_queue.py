"""A queue of workers that wait for leases, first come, first served, for every backend."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush

from safelight.wire import Lease, LeaseRequest

_REST = 0.05
"""Seconds before a worker looks again after it found no task although some were reported as waiting."""


class _Waiter:
    def __init__(self, ticket: int, request: LeaseRequest) -> None:
        self.ticket = ticket
        self.request = request
        self.future: asyncio.Future[list[Lease]] = asyncio.get_running_loop().create_future()
        self.claiming = False
        self.late = False

    def __lt__(self, other: _Waiter) -> bool:
        return self.ticket < other.ticket


class LeaseQueue:
    """Workers that wait for tasks. Only as many workers claim as there are tasks."""

    def __init__(
        self, claim: Callable[[LeaseRequest], asyncio.Future[list[Lease]]], return_leases: Callable[[list[Lease]], None]
    ) -> None:
        self._claim = claim
        self._return = return_leases
        self._queue: list[_Waiter] = []
        self._tickets = itertools.count()
        self._available = 0
        self._promised = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    async def wait(self, request: LeaseRequest) -> list[Lease]:
        """Wait in the queue until it is this worker's turn, or for `request.wait` seconds."""
        if self._closed:
            return []
        waiter = _Waiter(next(self._tickets), request)
        heappush(self._queue, waiter)
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
            if waiter in self._queue:
                self._queue.remove(waiter)
                self._queue.sort()  # the list is a heap, which `remove` may have broken

    def serve(self, available: int) -> None:
        """Let the workers that have waited longest claim the available tasks."""
        self._available = available
        while self._queue and self._available > self._promised:
            waiter = heappop(self._queue)
            waiter.claiming = True
            self._promised += waiter.request.n
            self._claim(waiter.request).add_done_callback(partial(self._claimed, waiter))

    def _claimed(self, waiter: _Waiter, claim: asyncio.Future[list[Lease]]) -> None:
        waiter.claiming = False
        self._promised -= waiter.request.n
        error = claim.exception()
        leases = [] if error else claim.result()
        if waiter.future.done():
            self._return(leases)
        elif error:
            waiter.future.set_exception(error)
        elif leases or waiter.late or self._closed:
            waiter.future.set_result(leases)
        else:
            # There were none after all. Asking again at once could spin.
            asyncio.get_running_loop().call_later(_REST, self._queue_again, waiter)
        self.serve(self._available)

    def _queue_again(self, waiter: _Waiter) -> None:
        if self._closed and not waiter.future.done():
            waiter.future.set_result([])
        elif not waiter.future.done() and not waiter.late:
            heappush(self._queue, waiter)
            self.serve(self._available)

    def dismiss(self, worker: str) -> None:
        """Answer a waiting worker without leases."""
        for waiter in [waiter for waiter in self._queue if waiter.request.worker.id == worker]:
            if not waiter.future.done():
                waiter.future.set_result([])

    def close(self) -> None:
        """Answer all waiting workers without leases, and let none wait again."""
        self._closed = True
        for waiter in self._queue:
            if not waiter.future.done():
                waiter.future.set_result([])
        self._queue.clear()
