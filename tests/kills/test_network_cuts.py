"""Test network cuts of a distributed system that last longer than a lease: packets vanish without a reset.

Every program has its own network namespace. No acknowledged data is lost or published twice, and programs that were cut
off continue when packets arrive again.
"""

import asyncio
import os
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kills.clients import Uploads
from kills.history import History
from safelight.client.master import Client
from support.servers.cluster import Cluster
from support.servers.places import namespaces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

LEASE = 2.0
CUT = 2.5 * LEASE
CLIENTS = 3
COUNTS = {"keyvaluestore": 2, "db": 2, "storage": 2, "master": 2, "worker": 2}
OPTIONS = {"worker": ["--lease-duration", f"{LEASE:g}", "--slots", "1"]}
LEADER = "the leader of etcd"
# All pairs of kinds of programs that communicate, cut in three rounds.
ROUNDS = {
    "workers": [
        *(("worker-1", "master-1"), ("worker-1", "master-2"), ("worker-1", "storage-1"), ("worker-2", "storage-2")),
        ("client", "master-2"),
    ],
    "services": [
        *(("master-1", "db-1"), ("master-2", "storage-1"), ("storage-2", "db-2")),
        ("master-1", "keyvaluestore-1"),
    ],
    "stores": [
        *(("db-1", "postgresql"), ("storage-1", "seaweedfs"), ("keyvaluestore-1", LEADER)),
        *((LEADER, f"etcd-{number}") for number in (1, 2, 3)),
    ],
}  # fmt: skip


BUCKET = {"the bucket": [("storage-1", "seaweedfs"), ("storage-2", "seaweedfs")]}
BUCKET_CUT = 35.0
"""Longer than any time limit of storage for a request to its bucket, except the limit for the whole request."""


@pytest.mark.parametrize(
    ("rounds", "lasts"),
    [pytest.param(ROUNDS, CUT, id="each-pair"), pytest.param(BUCKET, BUCKET_CUT, id="the-bucket")],
)
async def test_nothing_is_lost_while_the_network_is_cut(
    tmp_path: Path, rounds: dict[str, list[tuple[str, str]]], lasts: float
) -> None:
    history = History()
    async with AsyncExitStack() as stack:
        places = stack.enter_context(namespaces())
        whole = Cluster(tmp_path, COUNTS, OPTIONS, places=places)
        stack.callback(shutil.rmtree, whole.postgres.directory, ignore_errors=True)
        stack.push_async_callback(whole.close)
        await whole.open()
        client = await stack.enter_async_context(Client.connect(whole.addresses("master")))
        uploads = await stack.enter_async_context(Uploads.running(client, history, clients=CLIENTS))
        for name, pairs in rounds.items():
            await uploads.more(3)
            leader = f"etcd-{1 + await asyncio.to_thread(whole.etcd.leader)}"
            cuts = [(leader if one == LEADER else one, leader if other == LEADER else other) for one, other in pairs]
            cuts = [pair for pair in cuts if pair[0] != pair[1]]
            before = len(history.acknowledged)
            for pair in cuts:
                places.cut(*pair)
            await asyncio.sleep(lasts)  # the duration is part of the test, not a wait for something
            meanwhile, began = len(history.acknowledged) - before, time.monotonic()
            for pair in cuts:
                places.heal(*pair)
            await uploads.more(CLIENTS + 1)
            print(f"{name}: {meanwhile} acknowledged meanwhile, 4 more {time.monotonic() - began:.1f} s after it")
        await uploads.end()
        await uploads.judge()
