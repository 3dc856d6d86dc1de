"""Test how soon the task of a stopped or dead worker is leased again: the best of several, as other programs run
too."""

from __future__ import annotations

import asyncio
import time

from safelight.db.store import TaskStore
from safelight.wire import Returned, State, TaskQuery
from support.tasks import new_task, request

LEASE = 1.0


async def taken_up(store: TaskStore) -> float:
    """Wait until another worker has leased the task; return the time, and finish the task."""
    async with asyncio.timeout(60):
        (lease,) = await store.lease(request("other", wait=30.0))
    at = time.monotonic()
    assert lease.attempt == 2
    await store.cancel(lease.task)
    return at


async def test_a_dead_workers_task_is_leased_again_two_seconds_after_its_lease(backend):
    async with backend.open() as store:
        times: list[float] = []
        while len(times) < 4 and not (times and min(times) < LEASE + 2.0):
            await store.create([new_task()])
            await store.lease(request("dead", seconds=LEASE))
            leased = time.monotonic()
            times.append(await taken_up(store) - leased)
        assert LEASE / 2 < min(times) < LEASE + 2.0


async def test_a_stopped_workers_task_is_leased_again_within_100_ms(backend):
    async with backend.open() as store:
        times: list[float] = []
        while len(times) < 10 and not (times and min(times) < 0.1):
            await store.create([new_task()])
            (lease,) = await store.lease(request("stopped"))
            waiting = asyncio.create_task(taken_up(store))
            await asyncio.sleep(0.3)  # until the other worker waits
            returned = time.monotonic()
            await store.settle([Returned(lease=lease.id)])
            times.append(await waiting - returned)
        assert min(times) < 0.1
        assert not any(task.state is State.WORKING for task in (await store.find(TaskQuery())).tasks)
