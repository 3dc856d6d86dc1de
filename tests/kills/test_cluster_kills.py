"""Everything of a distributed system is killed in turn under uploads: nothing is lost, and no client sees an error."""

import asyncio
import itertools
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kills.clients import seen_all, settled, upload_until, watch
from kills.history import History
from safelight.client.master import Client
from support.photos import is_inverse, photo
from support.servers.cluster import Cluster

pytestmark = pytest.mark.slow

COUNTS = {"keyvaluestore": 2, "db": 2, "storage": 2, "master": 2, "worker": 2}
OPTIONS = {"worker": ["--lease-duration", "3", "--slots", "1"]}
# One instance of each of which there are two, a member of etcd (its leader), and then what there is one of.
VICTIMS = [
    "keyvaluestore-1",
    "storage-1",
    "master-1",
    "worker-1",
    "etcd",
    "db-1",
    "storage-2",
    "seaweedfs",
    "postgresql",
    "postgresql, by fail-over",
]
ALONE = {"seaweedfs", "postgresql", "postgresql, by fail-over"}
"""What there is one of: while it is away, uploads fail, and succeed when they are repeated."""


async def test_everything_is_killed_in_turn(tmp_path: Path) -> None:
    history, numbers, stop = History(), itertools.count(), asyncio.Event()
    restarts: dict[str, float] = {}
    recoveries: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        whole = Cluster(tmp_path, COUNTS, OPTIONS, standby=True)
        for server in (whole.postgres, whole.standby):
            assert server is not None
            stack.callback(shutil.rmtree, server.directory, ignore_errors=True)
        stack.push_async_callback(whole.close)
        await whole.open()
        client = await stack.enter_async_context(Client.connect(whole.addresses("master")))
        uploads = [asyncio.create_task(upload_until(stop, client, history, numbers)) for _ in range(3)]
        watcher = asyncio.create_task(watch(client, history))

        async def more(count: int, since: float = 0.0) -> None:
            """Wait until so many more of the uploads that were sent after a time are acknowledged."""
            enough = acknowledged(since) + count
            async with asyncio.timeout(90):
                while acknowledged(since) < enough:
                    await asyncio.wait(uploads, timeout=0.02)
                    assert not any(task.done() for task in uploads)

        def acknowledged(since: float) -> int:
            return sum(call.sent >= since for call in history.acknowledged)

        for victim in VICTIMS:
            await more(2)
            name = f"etcd-{1 + await asyncio.to_thread(whole.etcd.leader)}" if victim == "etcd" else victim
            unanswered = len(history.calls) - len(history.acknowledged)
            began = time.monotonic()
            if "fail-over" in victim:
                await whole.fail_over()
            else:
                await whole.kill(name)
                if victim in ALONE:
                    await whole.start(name)
            restarts[victim] = time.monotonic() - began
            await more(4, began)
            recoveries[victim] = time.monotonic() - began
            if victim not in ALONE:
                # Every client has one upload under way, then as now: none has failed since.
                assert len(history.calls) - len(history.acknowledged) == unanswered, victim
                await whole.start(name)
        stop.set()
        await asyncio.gather(*uploads)
        await settled(client, history)
        await seen_all(watcher, history)
    assert history.violations() == []
    for call in history.acknowledged:
        assert is_inverse(photo(call.photo), history.results[call.task or ""]), f"photo {call.photo} came out wrong"
    print("Seconds until four uploads sent after the kill were acknowledged, and of these, until the server ran")
    for victim, seconds in recoveries.items():
        print(f"{victim}: {seconds:.1f}, {restarts[victim]:.1f}")
