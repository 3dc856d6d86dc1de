"""Test kills of all programs of a distributed system during uploads: no data is lost, and no client sees an error."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kills.clients import Uploads
from kills.history import History
from safelight.client.master import Client
from support.servers.cluster import Cluster

pytestmark = pytest.mark.slow

COUNTS = {"keyvaluestore": 2, "db": 2, "storage": 2, "master": 2, "worker": 2}
OPTIONS = {"worker": ["--lease-duration", "3", "--slots", "1"]}
# One instance of each pair, the leader of etcd, and then the programs that have only one instance.
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
"""Programs with one instance: while one is away, uploads fail, and succeed when they are repeated."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        whole = Cluster(tmp_path, COUNTS, OPTIONS, standby=True)
        for server in (whole.postgres, whole.standby):
            assert server is not None
            stack.callback(shutil.rmtree, server.directory, ignore_errors=True)
        stack.push_async_callback(whole.close)
        await whole.open()
        yield whole


async def test_everything_is_killed_in_turn(cluster: Cluster) -> None:
    history = History()
    print("Seconds until four uploads sent after the kill were acknowledged, and of these, until the server ran")
    async with (
        Client.connect(cluster.addresses("master")) as client,
        Uploads.running(client, history, clients=3) as uploads,
    ):
        for victim in VICTIMS:
            await uploads.more(2)
            failed, began = len(history.failed), time.monotonic()
            name = await killed(cluster, victim)
            restarted = time.monotonic() - began
            await uploads.more(4, since=began)
            print(f"{victim}: {time.monotonic() - began:.1f}, {restarted:.1f}")
            if victim not in ALONE:
                assert len(history.failed) == failed, victim
                await cluster.start(name)
        await uploads.end()
        await uploads.judge()


async def killed(cluster: Cluster, victim: str) -> str:
    """Kill a program, and restart it if it has only one instance; otherwise return the name to start again later."""
    if "fail-over" in victim:
        await cluster.fail_over()
        return victim
    name = f"etcd-{1 + await asyncio.to_thread(cluster.etcd.leader)}" if victim == "etcd" else victim
    await cluster.kill(name)
    if victim in ALONE:
        await cluster.start(name)
    return name
