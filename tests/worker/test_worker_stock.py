"""How much a worker takes on."""

import asyncio

from safelight.worker.stock import Stock


async def test_asks_for_what_slots_and_stock_take_and_not_for_crumbs() -> None:
    stock = Stock(2, 1000)
    assert stock.wanted(0) == 4
    stock.learn(0.01)
    assert stock.ahead == 32
    assert stock.wanted(0) == 34
    assert stock.wanted(20) == 0
    assert stock.wanted(18) == 16


async def test_slow_images_are_left_to_other_workers() -> None:
    stock = Stock(2, 1000)
    stock.learn(10.0)
    assert stock.ahead == 1


async def test_the_stock_is_bounded_in_bytes_and_served_in_order() -> None:
    stock = Stock(1, 100)
    order = []
    gate = asyncio.Event()

    async def take(name: str, size: int) -> None:
        async with stock.room(size):
            order.append(name)
            await gate.wait()

    tasks = [asyncio.create_task(take(name, size)) for name, size in (("first", 80), ("huge", 500), ("small", 10))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == ["first"]
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "huge", "small"]


async def test_slots_count_who_is_busy() -> None:
    stock = Stock(1, 100)
    async with stock.slot():
        assert stock.busy == 1
    assert stock.busy == 0
