"""Test outages and full disks longer than a lease: photos are processed afterwards, and no task is charged."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from faults.shim import Faults
from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.wire import State, Task
from safelight.worker.outage import works
from support.photos import photo
from support.programs.processes import service
from support.programs.system import SERVICES, System, system

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LEASE = 1.5
RETRIED = 10.0
"""Seconds for which a worker tries to read a photo before it checks whether storage works at all."""
SETTINGS = {
    "worker": ["--lease-duration", str(LEASE), "--slots", "1"],
    "db": ["--max-errors", "1", "--max-deaths", "1"],
    "keyvaluestore": [],
}
"""Settings with which a single error or death ends a task."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Faults]:
    directory = tmp_path_factory.mktemp("faults")
    return {name: Faults(directory, name) for name in ("db", "storage", "master", "worker")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory, faults: dict[str, Faults]) -> AsyncIterator[System]:
    environments = {name: each.environment for name, each in faults.items()}
    data = tmp_path_factory.mktemp("data")
    async with system(data, workers=1, settings=SETTINGS, environments=environments) as running:
        yield running


def suspend(whole: System, *names: str) -> None:
    for name in names:
        whole.running[name].send(signal.SIGSTOP)


def resume(whole: System) -> None:
    for program in whole.running.values():
        program.send(signal.SIGCONT)


async def begin(fault: str, whole: System, faults: dict[str, Faults]) -> None:
    match fault:
        case "storage away":
            await whole.kill("storage")
        case "storage suspended":
            suspend(whole, "storage")
        case "storage full":
            faults["storage"].apply(write_error=errno.ENOSPC, only="/(blobs|incoming)/")
        case "storage fails":
            faults["storage"].apply(write_error=errno.EIO, flush_error=errno.EIO)
        case "blobs cannot be read":
            for name in ("storage", "worker"):  # a worker reads blobs directly if it sees storage's directory
                faults[name].apply(read_error=errno.EIO, only="/blobs/")
        case "master's clock ahead":
            faults["master"].apply(clock_offset=32 * 86400.0)
        case "worker's clock ahead":
            faults["worker"].apply(clock_offset=32 * 86400.0)
        case "worker's clock back":
            faults["worker"].apply(clock_offset=-3600.0)
        case "db flushes slowly":
            faults["db"].apply(flush_delay=LEASE * 1.5)
        case "db suspended":
            suspend(whole, "db")
        case "master away":
            await whole.kill("master")
        case "master suspended":
            suspend(whole, "master")
        case "worker suspended":
            suspend(whole, "worker-0")
        case "all suspended":
            suspend(whole, *SERVICES, "worker-0")


async def end(whole: System, faults: dict[str, Faults]) -> None:
    for each in faults.values():
        each.apply(write_error=0, read_error=0, flush_error=0, flush_delay=0.0, clock_offset=0.0, only="")
    resume(whole)
    for name in SERVICES:
        if name not in whole.running:
            await (await whole.start(name)).address()


async def settled(client: Client, id: str) -> Task:
    """Wait for the end of a task. A suspended worker takes back the death only when it runs again."""
    async with asyncio.timeout(60):
        while (task := await client.wait(id)).state is State.QUARANTINED:
            await client.changes(task.seq, wait=5.0, task=id)
    return task


@pytest.mark.parametrize(
    ("number", "fault"),
    list(enumerate([
        "storage away", "storage suspended", "storage full", "storage fails", "blobs cannot be read",
        "db flushes slowly", "db suspended", "master's clock ahead", "worker's clock ahead", "worker's clock back",
        "master away", "master suspended", "worker suspended", "all suspended",
    ])),
)  # fmt: skip
async def test_outages_are_not_charged(whole: System, faults: dict[str, Faults], number: int, fault: str) -> None:
    async with Client.connect(whole.master) as client:
        before = (await client.summary()).seq
        made = [await client.upload(photo(10 * number + n), filename=f"{n}.png") for n in range(3)]
        slow = {"outputs": {"image": {"format": "avif", "effort": 10}}}  # a second or more on one core
        made += [await client.upload(photo(10 * number + n, width=150), recipe=slow) for n in range(4, 6)]
        async with asyncio.timeout(30):
            while not any(event.kind == "leased" for event in (await client.changes(before, wait=5.0)).events):
                pass
        await begin(fault, whole, faults)
        await asyncio.sleep(RETRIED + 2 if fault == "blobs cannot be read" else 3 * LEASE + 1)
        await end(whole, faults)
        for task in made:
            done = await settled(client, task.id)
            assert (done.state, done.errors, done.deaths) == (State.FINISHED, 0, 0), (fault, done)


async def test_a_worker_trusts_storage_only_while_it_can_write(tmp_path: Path) -> None:
    """Bytes that are stored already need no write: with the same ones each time, a failing disk would seem to work."""
    faults = Faults(tmp_path, "storage")
    async with (
        service("storage", "--data", str(tmp_path / "data"), env=faults.environment) as program,
        StorageClient.connect(await program.address()) as storage,
    ):
        assert await works(storage)
        faults.apply(write_error=errno.EIO)
        assert not await works(storage)
        faults.apply(write_error=0)
        assert await works(storage)
