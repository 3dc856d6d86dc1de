"""Test third-party clients over a network that breaks: tuspy and tus-js-client (tests/web has Uppy)."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from tusclient.client import TusClient

from support.broken_network import network
from support.photos import photo
from support.programs.processes import program

WEB = Path(__file__).parents[2] / "web"
SCRIPT = Path(__file__).with_name("upload.mjs")


@pytest.fixture
async def broken(master):
    async with network(master.url) as between:
        yield between


@pytest.fixture
def large(tmp_path) -> Path:
    path = tmp_path / "large.png"
    path.write_bytes(photo(2, width=1400))
    return path


async def only_task(client):
    tasks = (await client.tasks()).tasks
    assert len(tasks) == 1
    return tasks[0]


@pytest.mark.slow
@pytest.mark.parametrize("checked", [False, True])
async def test_tuspy(broken, client, large, checked):
    broken.cuts = [200_000, 100_000, 50_000]  # the client opens a connection for each chunk

    def send():
        with large.open("rb") as file:
            uploader = TusClient(f"http://{broken.address}/uploads").uploader(
                file_stream=file,
                chunk_size=250_000,
                retries=8,
                retry_delay=0.2,
                metadata={"filename": "large.png", "recipe": "thumbnail"},
                upload_checksum=checked,
            )
            uploader.upload()

    async with asyncio.timeout(60):
        await asyncio.to_thread(send)
    assert broken.cut == 3
    task = await only_task(client)
    assert (task.filename, task.recipe) == ("large.png", "thumbnail")
    assert task.input.digest == hashlib.sha256(large.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"chunkSize": 300_000}, {"uploadDataDuringCreation": True}])
async def test_tus_js_client(broken, client, large, options):
    broken.cuts = [400_000, 500_000, 300_000]
    url = f"http://{broken.address}/uploads"
    async with program("node", str(SCRIPT), str(WEB), url, str(large), json.dumps(options)) as node:
        assert await node.ended(60) == 0, node.lines
    assert broken.cut == 3
    told = json.loads(node.output[-1])
    task = await only_task(client)
    assert told["task"] == task.id
    assert task.filename == "large.png"
    assert task.input.digest == hashlib.sha256(large.read_bytes()).hexdigest()
