"""Test which photos are the slowest ones in the statistics of a day."""

from __future__ import annotations

import time

from safelight.db.sqlite import SqliteStore
from safelight.master.live.spans import slowest_tasks
from safelight.steady import ManualClock
from safelight.wire import DEFAULT_TENANT
from support.tasks import finished, new_task, request

DAY, STEP = 86400, 900


async def test_deleted_photos_give_their_places_among_the_slowest_to_others(tmp_path):
    now = time.time()
    async with SqliteStore.open(tmp_path / "tasks.sqlite", clock=ManualClock(lambda: now)) as store:

        async def processed(*seconds: float) -> list[str]:
            await store.create([new_task() for _ in seconds])
            leases = await store.lease(request(n=len(seconds)))
            await store.settle([finished(lease.id, seconds=took) for lease, took in zip(leases, seconds, strict=True)])
            return [lease.task for lease in leases]

        async def slowest() -> list[str]:
            slots = await store.statistics(span=DAY, step=STEP)
            return [each.task for each in await slowest_tasks(store, DEFAULT_TENANT, slots)]

        slow = await processed(*range(20, 10, -1))
        now += 2 * STEP
        others = await processed(2.0, 1.0)
        assert await slowest() == slow
        for task in slow[2:]:
            await store.delete(task)
        assert await slowest() == slow[:2] + others
        for task in slow[:2]:
            await store.delete(task)
        assert await slowest() == others
