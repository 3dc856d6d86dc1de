"""Test `safelight migrate --to etcd://…`: it copies the users' entries to a real etcd and back."""

import json

import pytest

from backup.test_backup import run
from safelight import serve
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.keyvaluestore.__main__ import Config, build
from safelight.keyvaluestore.etcd import Access, EtcdStore, Gateway
from safelight.keyvaluestore.sqlite import SqliteStore
from support.servers.etcd import cluster

pytestmark = pytest.mark.slow

SET = {("greeting", ""): "hello", ("several", "a"): "1", ("several", "b"): "line\n2", ("ünï/code", ""): "ü" * 30_000}


async def migrate(*words, status=0):
    return json.loads(await run("migrate", *words, "--json", status=status))


async def lasting(store):
    return {(entry.key, entry.instance): entry.value for entry in (await store.entries()).entries if not entry.expires}


async def test_entries_that_people_set_move_to_etcd_and_back(tmp_path):
    with cluster(tmp_path, members=1) as etcd:
        url = f"{etcd.url}/moved"
        config = Config(port=0, data=str(tmp_path / "old"))
        async with serve.running("keyvaluestore", config, build) as service:
            where = ("--keyvaluestore", service.url.removeprefix("http://"))
            async with KeyValueStoreClient.connect(service.url) as client:
                for (key, instance), value in SET.items():
                    await client.set(key, value, instance=instance)
                await client.set("dbendpoint", "127.0.0.1:1", instance="db", ttl=3600)
                assert await migrate("--to", url, *where) == {"entries": 4, "copied": 4}
                await client.set("greeting", "good evening")
                assert await migrate("--to", url, *where) == {"entries": 4, "copied": 1}
                assert await migrate("--to", url, *where) == {"entries": 4, "copied": 0}
        moved = {**SET, ("greeting", ""): "good evening"}
        async with Gateway.open(url, Access()) as gateway, EtcdStore.open(gateway, prefix="/moved/") as store:
            assert await lasting(store) == moved
            assert len((await store.entries()).entries) == 4, "registrations must not be copied"
        back = tmp_path / "back.sqlite"
        assert await migrate("--from", url, "--to", f"sqlite://{back}") == {"entries": 4, "copied": 4}
        async with SqliteStore.open(back) as store:
            assert await lasting(store) == moved
        complaint = await run("migrate", "--from", "sqlite:///nowhere.sqlite", "--to", url, status=2)
        assert "is not a key-value store" in complaint
    assert "Is etcd running" in await run("migrate", "--from", url, "--to", f"sqlite://{back}", status=4)
