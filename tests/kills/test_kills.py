"""Every service and worker is killed at random under a stream of uploads; nothing acknowledged is lost."""

import asyncio
import itertools
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kills.clients import seen_all, settled, upload_until, watch
from kills.history import History
from safelight.client.master import Client
from support.photos import is_inverse, photo
from support.system import System, system

pytestmark = pytest.mark.slow

KILLS = {"one process": 6, "separate": 12}
"""Kills by form: each program twice, the services as a whole or one by one."""
CLIENTS = 3
WORKERS = 2
# Leases short enough that a killed worker's tasks come round within the test.
SETTINGS = {"worker": ["--lease-duration", "3", "--slots", "1"]}


async def kill_and_restart(whole: System, victim: str) -> None:
    """Kill a program, see it gone, and start it again at once."""
    await whole.kill(victim)
    started = await whole.start(victim)
    if not victim.startswith("worker"):
        await started.log("Master is listening on" if victim == "allinone" else "is listening on")


@pytest.mark.parametrize("form", KILLS)
async def test_nothing_acknowledged_is_lost_whatever_is_killed(tmp_path: Path, form: str) -> None:
    chance = random.Random()
    history, numbers, stop = History(), itertools.count(), asyncio.Event()
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(
            system(tmp_path, workers=WORKERS, settings=SETTINGS, together=form == "one process")
        )
        client = await stack.enter_async_context(Client.connect(whole.master))
        uploads = [asyncio.create_task(upload_until(stop, client, history, numbers)) for _ in range(CLIENTS)]
        watcher = asyncio.create_task(watch(client, history))
        victims = [*whole.services, *(f"worker-{n}" for n in range(WORKERS))]
        order = (victims * KILLS[form])[: KILLS[form]]
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
        await seen_all(watcher, history)
    assert len(history.acknowledged) >= 2 * KILLS[form]
    assert history.violations() == []
    for call in history.acknowledged:
        assert is_inverse(photo(call.photo), history.results[call.task or ""]), f"photo {call.photo} came out wrong"
