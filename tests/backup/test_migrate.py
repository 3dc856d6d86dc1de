"""Test `safelight migrate`: it copies blobs between a directory and a bucket of a real S3 server, during uploads."""

import asyncio
import itertools
import json

import pytest

from backup.test_backup import LIMIT, run
from kills.clients import upload_until
from kills.history import History
from safelight.client.master import Client
from safelight.storage.directory import DirectoryStore
from safelight.wire import State
from support.photos import is_inverse, photo
from support.programs.system import system
from support.servers.seaweedfs import seaweedfs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


async def migrate(*words, status=0):
    return json.loads(await run("migrate", *words, "--json", status=status))


async def test_a_system_moves_to_a_bucket_under_uploads_and_back(bucket, tmp_path, monkeypatch):
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    url, data = bucket.url(), tmp_path / "data"
    history, stop, numbers = History(), asyncio.Event(), itertools.count()
    async with system(data, workers=1) as whole, Client.connect(whole.master) as client:
        where = ("--keyvaluestore", whole.keyvaluestore)
        uploads = [asyncio.create_task(upload_until(stop, client, history, numbers)) for _ in range(2)]
        after, finished = 0, 0
        async with asyncio.timeout(LIMIT):
            while finished < 3:
                page = await client.changes(after, wait=5.0)
                finished += sum(event.kind == "finished" for event in page.events)
                after = page.last
        hot = await migrate("--to", url, *where)
        assert hot["copied"] >= 6, "inputs and results of finished tasks must be copied"
        assert hot["missing"] == []
        stop.set()
        await asyncio.gather(*uploads)
        for call in history.acknowledged:
            await client.wait(call.task, timeout=LIMIT)
        await migrate("--to", url, *where)
        again = await migrate("--to", url, "--verify", *where)
        assert again["copied"] == 0
        assert again["blobs"] == 2 * len(history.acknowledged)
    settings = {"storage": ["--store", url]}
    environments = {"storage": bucket.environment()}
    async with (
        system(data, settings=settings, environments=environments) as whole,
        Client.connect(whole.master) as client,
    ):
        for call in history.acknowledged:
            task = await client.task(call.task)
            assert task.state is State.FINISHED
            async with client.result(task.id) as response:
                assert is_inverse(photo(call.photo), await response.read())
    back = await migrate("--from", url, "--to", f"file://{tmp_path}/back")
    assert back["copied"] == again["blobs"]
    async with DirectoryStore.at(tmp_path / "back") as store:
        assert (await store.info()).blobs == again["blobs"]


async def test_a_stopped_store_moves_with_its_classic_names_and_damage_is_repaired(tmp_path):
    async def chunks(data):
        yield data

    async with DirectoryStore.at(tmp_path / "old") as old:
        blobs = [await old.put(chunks(f"blob {n}".encode())) for n in range(40)]
        await old.name("a classic name", blobs[7].digest)
    words = ("--from", f"file://{tmp_path}/old", "--to", f"file://{tmp_path}/new")
    assert (await migrate(*words))["copied"] == 40
    assert (await migrate(*words))["copied"] == 0
    (damaged,) = (tmp_path / "new/blobs").rglob(blobs[3].digest)
    damaged.write_bytes(b"blob X")
    await migrate(*words, "--verify")
    assert (await migrate(*words, "--verify"))["copied"] == 0
    async with DirectoryStore.at(tmp_path / "new") as new:
        assert (await new.named("a classic name")).digest == blobs[7].digest
        async with new.open(blobs[3].digest, verify=True) as blob:
            assert b"".join([chunk async for chunk in blob.chunks()]) == b"blob 3"
        assert "in use" in await run("migrate", *words, status=5)
    said = (await run("migrate", *words)).splitlines()
    back = said[-1].partition("To go back later: safelight ")[2].split()
    assert back == ["migrate", "--from", f"file://{tmp_path}/new", "--to", f"file://{tmp_path}/old"]
    assert (await migrate(*back[1:]))["copied"] == 0, "the old store must be unchanged"
    for wrong in ("ftp://there", "file://relative"):
        assert "file:///DIRECTORY" in await run("migrate", "--to", wrong, status=2)
