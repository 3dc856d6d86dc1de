"""Kill two masters and two storages on one bucket in the middle of a request of third-party clients."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tusclient.client import TusClient

from safelight.client.base import ServiceClient
from safelight.client.master import Client
from safelight.master.upload.segments import SEGMENT
from support.broken_network import network
from support.photos import photo
from support.programs.ports import free_port
from support.programs.processes import Program, program, service

pytestmark = pytest.mark.slow

WEB = Path(__file__).parents[2] / "web"
SCRIPT = Path(__file__).with_name("upload.mjs")
MIB = 1 << 20


class Services:
    """One key-value store, one db, and two storages and masters, each on a port of its own."""

    def __init__(self, stack: AsyncExitStack, data: Path, bucket: str) -> None:
        self._stack = stack
        self._data = data
        self._bucket = bucket
        self._ports = {name: free_port() for name in ("keyvaluestore", "db", "storage-1", "storage-2", "one", "two")}
        self._running: dict[str, Program] = {}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    async def start(self, name: str) -> None:
        """Start a service, and wait until it is ready."""
        kind = "master" if name in ("one", "two") else name.partition("-")[0]
        argv = ["--port", str(self._ports[name]), "--data", str(self._data / name)]
        if kind != "keyvaluestore":
            argv.insert(0, self.url("keyvaluestore").removeprefix("http://"))
        if kind == "storage":
            argv += ["--store", self._bucket]
        self._running[name] = await self._stack.enter_async_context(service(kind, *argv))
        await self._running[name].address()
        async with asyncio.timeout(60), ServiceClient.connect(self.url(name)) as client:
            while not await client.is_ready(wait=5.0):
                assert self._running[name].running

    async def kill(self, name: str) -> None:
        self._running[name].send(signal.SIGKILL)
        await self._running[name].ended()


@pytest.fixture
async def services(tmp_path, bucket_url):
    async with AsyncExitStack() as stack:
        running = Services(stack, tmp_path, bucket_url)
        for name in ("keyvaluestore", "db", "storage-1", "storage-2", "one", "two"):
            await running.start(name)
        yield running


@pytest.fixture
def large(tmp_path) -> Path:
    path = tmp_path / "large.png"
    path.write_bytes(photo(2) + os.urandom(3 * SEGMENT))
    return path


async def by_tus_js_client(address: str, file: Path, delays: list[int]) -> int:
    """Upload a file in one request, with pauses (in milliseconds) before it is continued; return how often it was."""
    options = json.dumps({"chunkSize": 1 << 40, "retryDelays": delays})
    async with program("node", str(SCRIPT), str(WEB), f"http://{address}/uploads", str(file), options) as node:
        assert await node.ended(90) == 0, node.lines
    return int(json.loads(node.output[-1])["retries"])


async def by_tuspy(address: str, file: Path, checked: bool) -> int:  # noqa: FBT001 - of the parameters
    """Upload a file in one request, without a second attempt."""

    def send() -> None:
        with file.open("rb") as stream:
            TusClient(f"http://{address}/uploads").uploader(file_stream=stream, upload_checksum=checked).upload()

    await asyncio.to_thread(send)
    return 0


async def judged(services: Services, file: Path) -> None:
    """Compare what the masters have with the file."""
    data = await asyncio.to_thread(file.read_bytes)
    for name in ("one", "two"):
        async with Client.connect(services.url(name)) as client:
            [task] = (await client.tasks()).tasks
            assert task.input.digest == hashlib.sha256(data).hexdigest()
            async with client.original(task.id) as answer:
                assert await answer.read() == data


@pytest.mark.parametrize(
    "way",
    [
        pytest.param((by_tus_js_client, []), id="tus-js-client"),
        pytest.param((by_tuspy, True), id="tuspy"),
    ],
)
async def test_no_client_sees_the_death_of_a_storage(services, large, way):
    """Both storages die one after the other, so that one of them has the upload; the clients may not retry."""
    send, option = way
    async with network(services.url("one")) as between:
        between.hold(SEGMENT + 3 * MIB)
        sending = asyncio.create_task(send(between.address, large, option))
        async with asyncio.timeout(120):
            await between.held.wait()
            await services.kill("storage-1")
            between.flow()
            between.hold(2 * MIB)
            await between.held.wait()
            await services.start("storage-1")
            await services.kill("storage-2")
            between.flow()
            assert await sending == 0
    await judged(services, large)


async def test_an_upload_continues_at_once_after_the_death_of_its_master(services, large):
    """A connection breaks with its master, so the client must reconnect, with its usual pauses."""
    async with network(services.url("one")) as between:
        between.hold(SEGMENT + 3 * MIB)
        sending = asyncio.create_task(by_tus_js_client(between.address, large, [0, 1000, 3000, 5000]))
        async with asyncio.timeout(120):
            await between.held.wait()
            between.lead_to(services.url("two"))
            await services.kill("one")
            between.flow()
            assert await sending <= 2
    await services.start("one")
    await judged(services, large)
