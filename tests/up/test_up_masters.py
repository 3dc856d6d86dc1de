"""Test `safelight up --masters`: several masters share one port."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from safelight.client.base import session
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.wire import State
from support.metrics import metric
from support.photos import is_inverse, photo
from support.programs.pids import children, gone
from support.programs.ports import first_of_free_ports
from support.programs.until import until
from up.test_up import addresses, up

pytestmark = pytest.mark.slow

MASTERS = 3


def masters(parent: int) -> list[int]:
    """Return the process ids of the masters below `safelight up`."""
    return [pid for pid in children(parent) if b"safelight.master\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def served(pid: int, port: int) -> int:
    """Count the open connections of a process to a port that it listens on."""
    table = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    established = {row[9] for row in table if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port}
    targets = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(target.removeprefix("socket:[").removesuffix("]") in established for target in targets)


async def test_masters_share_a_port_and_the_work_and_any_may_die(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--masters", MASTERS) as running:
        where = await addresses(running)
        own = [f"master-{number}" for number in range(1, MASTERS + 1)]
        assert set(where) == {"keyvaluestore", "db", "storage", "master", "worker-1", *own}
        pids, port = masters(running.process.pid), int(where["master"].rpartition(":")[2])
        assert len(pids) == MASTERS
        with_connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        await until(lambda: all(served(pid, port) for pid in pids))
        for connection in with_connections:
            connection.close()
        async with session() as http, asyncio.TaskGroup() as both:
            both.create_task(upload_all(where["master"], 12))
            both.create_task(kill(pids[:2]))
            assert await status(http, where["master"]) == 200
        async with KeyValueStoreClient.connect(where["keyvaluestore"]) as store:
            await until(lambda: registered(store, where["master"], MASTERS))
        assert await running.stop() == 0
        assert running.lines[-1]["message"] == "Stopped"


async def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        await gone(pid)


async def upload_all(master: str, n: int) -> None:
    async with Client.connect(master) as client:
        for number in range(n):
            task = await client.upload(photo(number))
            assert (await client.wait(task.id, timeout=60)).state is State.FINISHED
            async with client.result(task.id) as response:
                assert is_inverse(photo(number), await response.read())


async def status(http: aiohttp.ClientSession, master: str) -> int:
    """Return the status of the page, which a master that was just killed may cut off."""
    while True:
        try:
            async with http.get(f"http://{master}/") as response:
                return response.status
        except aiohttp.ClientConnectionError:
            continue


async def registered(store: KeyValueStoreClient, master: str, n: int) -> bool:
    entries = (await store.entries("masterendpoint")).entries
    assert {entry.value for entry in entries} == {master}
    return len(entries) >= n


async def test_each_has_metrics_of_its_own(tmp_path: Path) -> None:
    """On the port that they share, any of them answers, and a counter would seem to go back."""
    async with up(tmp_path / "data", "--masters", 2, "--workers", 0) as running, session() as http:
        where = await addresses(running)

        async def uploads() -> list[float]:
            return [await metric(http, f"http://{where[f'master-{n}']}", "safelight_uploads_total") for n in (1, 2)]

        assert await uploads() == [0, 0]
        for number in range(6):
            async with Client.connect(where["master"]) as client:  # each over a connection of its own
                await client.upload(photo(number))
        assert sum(await uploads()) == 6
        assert await running.stop() == 0


async def test_small_photos_go_to_storage_by_file(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--masters", 2, "--workers", 0) as running:
        where = await addresses(running)
        async with Client.connect(where["master"]) as client:
            task = await client.upload(photo(1))
            assert task.input is not None
            found = next((tmp_path / "data/storage/blobs").glob(f"*/{task.input.digest}"))
            assert found.read_bytes() == photo(1)
        line = await running.log(lambda line: "Photos and results go by file" in line["message"])
        assert line["program"].startswith("master")
        assert await running.stop() == 0


async def test_a_port_that_leaves_too_few_is_refused(tmp_path: Path) -> None:
    async with up(tmp_path / "data", "--masters", 2, port=65_450) as running:
        assert await running.ended() == 2
        assert "leaves too few ports: 7 are needed" in str(running.lines)


async def test_a_port_that_is_not_shared_is_refused(tmp_path: Path) -> None:
    port = first_of_free_ports()
    with socket.create_server(("127.0.0.1", port + 3)):
        async with up(tmp_path / "data", "--masters", 2, port=port) as running:
            assert await running.ended() == 5
            assert "master cannot listen" in str(running.lines)
