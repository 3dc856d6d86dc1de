"""Test random kills of all services and workers during uploads: no acknowledged data is lost."""

import random
from pathlib import Path

import pytest

from kills.clients import Uploads
from kills.history import History
from safelight.client.master import Client
from support.programs.system import System, system

pytestmark = pytest.mark.slow

KILLS = {"one process": 6, "separate": 12}
"""Kills by form of the system: each program twice, the services together or one by one."""
CLIENTS = 3
WORKERS = 2
# Leases are short, so that a killed worker's tasks are leased again within the test.
SETTINGS = {"worker": ["--lease-duration", "3", "--slots", "1"]}


async def kill_and_restart(whole: System, victim: str) -> None:
    """Kill a program, wait for its end, and restart it at once."""
    await whole.kill(victim)
    started = await whole.start(victim)
    if not victim.startswith("worker"):
        await started.log("Master is listening on" if victim == "allinone" else "is listening on")


@pytest.mark.parametrize("form", KILLS)
async def test_nothing_acknowledged_is_lost_whatever_is_killed(tmp_path: Path, form: str) -> None:
    chance, history = random.Random(), History()
    async with (
        system(tmp_path, workers=WORKERS, settings=SETTINGS, together=form == "one process") as whole,
        Client.connect(whole.master) as client,
        Uploads.running(client, history, clients=CLIENTS) as uploads,
    ):
        victims = [*whole.services, *(f"worker-{n}" for n in range(WORKERS))]
        order = (victims * KILLS[form])[: KILLS[form]]
        chance.shuffle(order)
        for victim in order:
            await uploads.more(2)  # let some work happen between kills
            await kill_and_restart(whole, victim)
        await uploads.end()
        await whole.ready()
        await uploads.judge()
    assert len(history.acknowledged) >= 2 * KILLS[form]
