"""Test how many tasks a worker leases."""

import asyncio

import msgspec

from safelight.wire import LeaseRequest
from safelight.worker.prefetch import Prefetch


async def test_a_worker_asks_for_tasks_up_to_its_slots_and_prefetch() -> None:
    prefetch = Prefetch(2, 1000)
    assert prefetch.wanted(0) == 4
    prefetch.learn(0.01)
    assert prefetch.ahead == 32
    assert prefetch.wanted(0) == 34
    assert prefetch.wanted(20) == 0
    assert prefetch.wanted(18) == 16


async def test_a_worker_with_many_slots_asks_for_no_more_than_the_master_allows() -> None:
    prefetch = Prefetch(1024, 1000)
    held = 0
    while n := prefetch.wanted(held):
        msgspec.convert({"worker": {"id": "w"}, "n": n}, LeaseRequest)
        held += n
    assert held >= 1024


async def test_slow_images_are_left_to_other_workers() -> None:
    prefetch = Prefetch(2, 1000)
    prefetch.learn(10.0)
    assert prefetch.ahead == 1


async def test_prefetched_photos_are_bounded_in_bytes_and_served_in_order() -> None:
    prefetch = Prefetch(1, 100)
    order = []
    gate = asyncio.Event()

    async def take(name: str, size: int) -> None:
        async with prefetch.room(size):
            order.append(name)
            await gate.wait()

    tasks = [asyncio.create_task(take(name, size)) for name, size in (("first", 80), ("huge", 500), ("small", 10))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["first"]
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "huge", "small"]


async def test_slots_count_busy_decoders() -> None:
    prefetch = Prefetch(1, 100)
    async with prefetch.slot():
        assert prefetch.busy == 1
    assert prefetch.busy == 0
