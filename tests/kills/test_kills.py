"""Every service and worker is killed at random under a stream of uploads; nothing acknowledged is lost."""

import asyncio
import itertools
import random
import secrets
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kills.history import Call, History
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import ENDED, State
from support.photos import is_inverse, photo
from support.system import SERVICES, System, system

pytestmark = pytest.mark.slow

KILLS = 14
CLIENTS = 3
WORKERS = 2
# Leases short enough that a killed worker's tasks come round within the test.
SETTINGS = {"worker": ["--lease-seconds", "3", "--slots", "1"]}


async def upload_until(stop: asyncio.Event, client: Client, history: History, numbers: "itertools.count[int]") -> None:
    """Upload one photo after another; a call that fails is sent again under the same key, as a client would."""
    while not stop.is_set():
        number = next(numbers)
        call = Call(photo=number, key=secrets.token_hex(16))
        history.calls.append(call)
        try:
            task = await client.upload(photo(number), filename=f"{number}.png", idempotency_key=call.key)
        except Error:
            continue
        call.answered, call.task = time.monotonic(), task.id
        history.saw(task)


async def watch(client: Client, history: History) -> None:
    """Follow every event for as long as the test lasts, over all restarts; look at what each is about."""
    after = 0
    while True:
        try:
            page = await client.changes(after, wait=5.0)
            history.events += page.events
            after = page.last
            for event in page.events[-3:]:
                history.saw(await client.task(event.task))
        except Error:
            continue


async def kill_and_restart(whole: System, victim: str) -> None:
    """Kill a program, see it gone, and start it again at once."""
    await whole.kill(victim)
    started = await whole.start(victim)
    if not victim.startswith("worker"):
        await started.address()


async def settled(client: Client, history: History) -> None:
    """Wait until every acknowledged task has ended; release what the kills had quarantined, as a person would."""
    for call in history.acknowledged:
        assert call.task is not None
        async with asyncio.timeout(90):
            task = await client.wait(call.task)
            while task.state is State.QUARANTINED:
                assert task.failure is not None
                await client.release(task.id)
                task = await client.wait(task.id)
        assert task.state in ENDED
        history.final[task.id] = task
        history.saw(task)
        if task.state is State.FINISHED:
            async with client.result(task.id) as response:
                history.results[task.id] = await response.read()


async def test_nothing_acknowledged_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    chance = random.Random()
    history, numbers, stop = History(), itertools.count(), asyncio.Event()
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(system(tmp_path, workers=WORKERS, settings=SETTINGS))
        client = await stack.enter_async_context(Client.connect(whole.master))
        uploads = [asyncio.create_task(upload_until(stop, client, history, numbers)) for _ in range(CLIENTS)]
        watcher = asyncio.create_task(watch(client, history))
        victims = [*SERVICES, *(f"worker-{n}" for n in range(WORKERS))]
        order = (victims * KILLS)[:KILLS]
        chance.shuffle(order)
        for victim in order:
            # Let some work happen between kills: two more acknowledged uploads.
            enough = len(history.acknowledged) + 2
            async with asyncio.timeout(60):
                while len(history.acknowledged) < enough:
                    await asyncio.wait(uploads, timeout=0.05)
                    assert not any(task.done() for task in uploads)
            await kill_and_restart(whole, victim)
        stop.set()
        await asyncio.gather(*uploads)
        await whole.ready()
        await settled(client, history)
        last = max(task.seq for task in history.final.values())
        async with asyncio.timeout(30):
            while not history.events or history.events[-1].seq < last:
                await asyncio.wait([watcher], timeout=0.05)
                assert not watcher.done()
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    assert len(history.acknowledged) >= 2 * KILLS
    assert history.violations() == []
    for call in history.acknowledged:
        assert is_inverse(photo(call.photo), history.results[call.task or ""]), f"photo {call.photo} came out wrong"
