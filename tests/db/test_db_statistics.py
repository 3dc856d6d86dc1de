"""Test db's statistics of the last week: events count once, the size is bounded, and restarts change nothing."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from safelight.db.calls import statistics
from safelight.errors import Code
from safelight.wire import TaskChange, TaskFilter, TaskQuery
from support.tasks import died, failed, finished, new_task, refused, request

DAY = 86400


async def total(store, **where) -> Counter[str]:
    """Return the counts of a day, summed by the test."""
    slots = await store.statistics(span=DAY, step=300, **where)
    names = ("created", "finished", "failed", "quarantined", "deaths", "change")
    return Counter({name: sum(getattr(slot.counts, name) for slot in slots) for name in names})


async def test_every_event_is_counted_once(opened):
    store = await opened()
    began = time.time()
    for _ in range(3):
        await store.create([new_task(recipe="web") for _ in range(400)])  # more events than are counted at once
    await store.create([new_task(internal=True)])
    leases = await store.lease(request(n=30))
    leases = [lease for lease in leases if lease.recipe == "web"][:8]
    await store.settle([finished(lease.id, seconds=0.1 * (n + 1)) for n, lease in enumerate(leases[:5])])
    await store.settle([failed(lease.id, permanent=True) for lease in leases[5:7]])
    await store.settle([died(leases[7].id)])
    expected = {"created": 1200, "finished": 5, "failed": 2, "quarantined": 0, "deaths": 1, "change": 1193}
    assert await total(store) == expected
    assert await total(store) == expected, "reading must change nothing"
    store = await opened()
    assert await total(store) == expected
    slots = await store.statistics(span=DAY, step=DAY)
    counts = slots[-1].counts
    for slot in slots[:-1]:  # the test may run over midnight
        counts.merge(slot.counts)
    assert counts.reasons == {"damaged_image": 2}
    assert [task for _, task in counts.slowest] == [lease.task for lease in reversed(leases[:5])]
    assert counts.percentile(0.5) == pytest.approx(0.3, rel=0.19)
    assert counts.percentile(1.0) == pytest.approx(0.5, rel=0.19)
    fine = await store.statistics(span=3600, step=300)
    assert all(slot.at % 300 == 0 and began - 600 <= slot.at <= time.time() + 1 for slot in fine)
    assert await store.statistics(span=DAY, step=300, tenant="other") == []
    await store.change(TaskChange(action="delete", filter=TaskFilter(state="finished"), limit=1000))
    assert (await total(store))["finished"] == 5, "tasks that were deleted since must still count"


async def test_a_task_that_is_deleted_before_its_end_is_no_longer_open(opened):
    store = await opened()
    await store.create([new_task() for _ in range(4)])
    ended, working = await store.lease(request(n=2))
    await store.settle([finished(ended.id)])
    waiting = (await store.find(TaskQuery(state="waiting"))).tasks[0]
    for task in (waiting.id, working.task):
        await store.delete(task)
    assert (await total(store))["change"] == 1
    await store.delete(ended.task)
    assert (await total(store))["change"] == 1, "it had ended before"


async def test_spans_that_are_not_multiples_are_refused(service):
    from safelight.client.db import DbClient

    async with DbClient.connect(service.url) as client:
        await refused(Code.INVALID_REQUEST, client.statistics(span=DAY, step=299))
        await refused(Code.INVALID_REQUEST, client.statistics(span=8 * DAY, step=300))


async def test_old_slots_are_deleted(backend):
    """The number of a tenant's slots is bounded: the store removes slots that are older than the retention time."""
    async with backend.open() as store:
        await store.create([new_task()])
        assert (await total(store))["created"] == 1
        now = int(time.time() * 1000)
        await store._do(statistics.remove, now - 3_600_000)
        assert (await total(store))["created"] == 1
        await store._do(statistics.remove, now + 600_000)
        assert await store.statistics(span=DAY, step=300) == []
