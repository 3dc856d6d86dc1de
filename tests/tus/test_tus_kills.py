"""Services killed in the middle of uploads: no acknowledged byte is lost, and one upload is one task."""

import hashlib

import aiohttp
import pytest

from safelight.client.master import Client
from safelight.wire import State
from support.photos import photo
from support.system import system
from support.tus import Tus


@pytest.fixture
async def whole(tmp_path):
    async with system(tmp_path) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["storage", "master"])
async def test_killed_between_pieces_and_at_the_end(whole, victim):
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
