"""Test services that are killed during uploads: no acknowledged byte is lost, and one upload is one task."""

import asyncio
import hashlib
import json
import os
import threading
from pathlib import Path

import aiohttp
import pytest
from tusclient.client import TusClient
from tusclient.uploader import Uploader

from faults.storage.test_other_store import refusal, replace_store
from safelight.client.master import Client
from safelight.wire import State
from support.broken_network import network
from support.photos import photo
from support.programs.processes import program
from support.programs.system import system
from support.tus import Tus

WEB = Path(__file__).parents[2] / "web"
SCRIPT = Path(__file__).with_name("upload.mjs")


@pytest.fixture
async def whole(tmp_path):
    async with system(tmp_path) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["storage", "master"])
async def test_services_killed_between_chunks_and_at_the_end(whole, victim):
    data = photo(0, width=900)
    async with aiohttp.ClientSession() as session, Client.connect(whole.master) as client:
        tus = Tus(session, f"http://{whole.master}")
        path = await tus.opened(len(data), filename="kept.png")
        offset = 0
        while offset < len(data):
            acknowledged = await tus.patch(path, offset, data[offset : offset + 400_000])
            assert acknowledged.status == 204
            offset = int(acknowledged.headers["Upload-Offset"])
            await whole.kill(victim)
            await whole.start(victim)
            await whole.ready()
            assert await tus.offset(path) == offset
        first = await tus.send("HEAD", path)
        task = await client.task(first.headers["Safelight-Task"])
        assert task.state is State.WAITING
        assert task.input.digest == hashlib.sha256(data).hexdigest()
        assert len((await client.tasks()).tasks) == 1


@pytest.mark.slow
async def test_the_only_storage_dies_and_comes_back_while_bytes_flow(whole):
    data = photo(1, width=1200)
    async with aiohttp.ClientSession() as session, Client.connect(whole.master) as client:
        tus = Tus(session, f"http://{whole.master}")
        path = await tus.opened(len(data))
        assert (await tus.patch(path, 0, data[:100_000])).status == 204

        async def flow():
            yield data[100_000:1_200_000]
            await whole.kill("storage")
            await whole.start("storage")
            yield data[1_200_000:]

        done = await tus.patch(path, 100_000, flow())
        assert done.status == 204
        task = await client.task(done.headers["Safelight-Task"])
        assert task.input.digest == hashlib.sha256(data).hexdigest()


@pytest.mark.slow
async def test_clients_that_got_503_continue_when_storage_is_back(whole, tmp_path, monkeypatch):
    """The only storage is away longer than a master waits for it, in the middle of a request of each client."""
    told, again = threading.Event(), Uploader._retry_or_cry

    def noted(uploader: Uploader, error: Exception) -> None:
        if getattr(error, "status_code", None) == 503:
            told.set()
        again(uploader, error)

    monkeypatch.setattr(Uploader, "_retry_or_cry", noted)
    files = [tmp_path / "one.png", tmp_path / "other.png"]
    for number, file in enumerate(files):
        file.write_bytes(photo(number) + os.urandom(1 << 20))

    def by_tuspy(url: str) -> None:
        with files[0].open("rb") as stream:
            TusClient(url).uploader(file_stream=stream, retries=60, retry_delay=1).upload()

    async with network(f"http://{whole.master}") as between, Client.connect(whole.master) as client:
        url = f"http://{between.address}/uploads"
        options = json.dumps({"retryDelays": [1000] * 60})
        between.hold(1 << 20)
        python = asyncio.create_task(asyncio.to_thread(by_tuspy, url))
        async with program("node", str(SCRIPT), str(WEB), url, str(files[1]), options) as node:
            await between.held.wait()
            await whole.kill("storage")
            between.flow()
            await node.log("status 503", timeout=60)
            assert await asyncio.to_thread(told.wait, 60)
            await whole.start("storage")
            assert await node.ended(60) == 0, node.lines
            await python
        digests = {task.input.digest for task in (await client.tasks()).tasks}
    assert digests == {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow
async def test_an_upload_starts_again_if_storage_has_lost_everything(whole, tmp_path):
    """Clients are told to wait until a person accepts the empty store, and then that their upload is not there."""
    file = tmp_path / "one.png"
    file.write_bytes(photo(0) + os.urandom(1 << 20))
    async with network(f"http://{whole.master}") as between, Client.connect(whole.master) as client:
        async with aiohttp.ClientSession() as session:
            tus = Tus(session, f"http://{whole.master}")
            lost = await tus.opened(1000)
            between.hold(1 << 20)
            options = json.dumps({"retryDelays": [1000] * 60})
            url = f"http://{between.address}/uploads"
            async with program("node", str(SCRIPT), str(WEB), url, str(file), options) as node:
                await between.held.wait()
                await replace_store(whole, "storage")
                between.flow()
                new = (await refusal(whole)).split()[-1].rstrip(".")
                await node.log("status 503", timeout=60)
                assert (await tus.send("HEAD", lost)).status == 423
                await client.accept_storage(new)
                assert await node.ended(60) == 0, node.lines
            gone = await tus.send("HEAD", lost)
            assert gone.status == 404
        (task,) = (await client.tasks()).tasks
    assert task.input.digest == hashlib.sha256(file.read_bytes()).hexdigest()
