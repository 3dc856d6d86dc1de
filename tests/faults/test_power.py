"""Test that acknowledged data survives a power cut, and that it would be lost without any one of the flushes."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import secrets
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.power import Disk, mounted
from faults.shim import Faults
from kills.clients import settled, upload_until
from kills.history import History
from safelight.client.db import DbClient
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.client.partials import PartialClient
from safelight.client.storage import StorageClient
from safelight.db.sqlite import SqliteStore
from safelight.errors import Error
from safelight.keyvaluestore.sqlite import SqliteStore as KeyValueStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.partial.directory import PartialDirectory
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial, State
from support.photos import is_inverse, photo
from support.programs.pids import is_stopped
from support.programs.processes import service
from support.programs.system import system
from support.programs.until import until
from support.tasks import finished, new_task, request

pytestmark = pytest.mark.slow

DATA = os.urandom(200_000)  # so little that nothing is written to disk before its flush (`writeback.LEAST`)


async def stream(data: bytes):
    yield data


async def put(address: str, number: int) -> str:
    async with StorageClient.connect(address) as client:
        return (await client.put(DATA + bytes([number]))).digest


async def adopt(address: str, number: int) -> str:
    async with StorageClient.connect(address) as client:
        shared = await client.shared()
        assert shared is not None
        path = Path(shared.path, "handover", secrets.token_hex(16))
        await asyncio.to_thread(path.write_bytes, DATA + bytes([number]))
        return (await client.adopt(path.name, shared.token)).digest


async def blob_kept(data: Path, digest: str) -> bool:
    async with DirectoryStore.at(data) as store:
        try:
            async with store.open(digest, verify=True):
                return True
        except Error:
            return False


async def append(address: str, number: int) -> str:
    async with PartialClient.connect(address) as client:
        upload = await client.create(NewPartial(size=len(DATA) + 1))
        assert (await client.append(upload.id, 0, stream(bytes([number]) + DATA))).offset == len(DATA) + 1
        return upload.id


async def append_checked(address: str, number: int) -> str:
    data = bytes([number]) + DATA
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    async with PartialClient.connect(address) as client:
        upload = await client.create(NewPartial(size=len(data)))
        assert (await client.append(upload.id, 0, stream(data), checksum=checksum)).offset == len(data)
        return upload.id


async def append_kept(data: Path, id: str) -> bool:
    async with (
        DirectoryStore.at(data) as blobs,
        PartialDirectory.at(data / "partials", blobs, PartialLimits()) as store,
    ):
        try:
            found = await store.get(id)
            return found.offset == len(DATA) + 1 and (data / "partials" / id / "bytes").read_bytes()[1:] == DATA
        except Error:
            return False


async def finish(address: str, number: int) -> str:
    async with PartialClient.connect(address) as client:
        return (await client.finish(await append(address, number))).digest


async def create(address: str, _number: int) -> str:
    async with DbClient.connect(address) as client:
        return (await client.create([new_task()]))[0].id


async def task_kept(data: Path, id: str) -> bool:
    async with SqliteStore.open(data / "tasks.sqlite") as store:
        try:
            return (await store.get(id)).id == id
        except Error:
            return False


async def keep(address: str, number: int) -> str:
    async with KeyValueStoreClient.connect(address) as client:
        await client.set(f"key-{number}", "value")
        return f"key-{number}"


async def entry_kept(data: Path, key: str) -> bool:
    async with KeyValueStore.open(next(iter(data.glob("*.sqlite")))) as store:  # noqa: ASYNC240
        return any(entry.key == key for entry in (await store.entries()).entries)


@dataclass
class Case:
    """A case: what a service acknowledges, how to find it afterwards, and the flushes of one kind that it needs."""

    service: str
    act: Callable[[str, int], Awaitable[str]]
    kept: Callable[[Path, str], Awaitable[bool]]
    flushes: str


CASES = {
    "bytes of a blob": Case("storage", put, blob_kept, "/incoming/"),
    "directory of a blob": Case("storage", put, blob_kept, "/blobs/[0-9a-f]{2}$"),
    "bytes of an adopted file": Case("storage", adopt, blob_kept, "/handover/"),
    "bytes of a partial upload": Case("storage", append, append_kept, "/bytes$"),
    "removal of the mark of a checksum": Case("storage", append_checked, append_kept, "/partials/[0-9a-f]{32}$"),
    "record of a partial upload": Case("storage", append, append_kept, "/record[.]new$"),
    "directory of the blob that a partial upload becomes": Case("storage", finish, blob_kept, "/blobs/[0-9a-f]{2}$"),
    "tasks": Case("db", create, task_kept, "[.]sqlite-wal$"),
    "entries": Case("keyvaluestore", keep, entry_kept, "[.]sqlite-wal$"),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_power_cut_undoes_nothing_and_each_flush_is_needed(tmp_path: Path, name: str) -> None:
    case, faults, disk = CASES[name], Faults(tmp_path, "power"), Disk(tmp_path)
    with disk.running() as path:
        async with service(case.service, "--data", str(path / "data"), env=faults.environment) as program:
            address = await program.address()
            await case.act(address, 0)
            acknowledged = await case.act(address, 1)
            cut = disk.cut()
            faults.apply(drop=case.flushes)
            unsafe = await case.act(address, 2)
            cut_without = disk.cut()
            assert faults.dropped > 0
            faults.apply(drop="")
            await program.stop()
    with mounted(cut, tmp_path / "after") as path:
        assert await case.kept(path / "data", acknowledged), f"{name}: acknowledged, and lost by a power cut"
    with mounted(cut_without, tmp_path / "after-without") as path:
        assert not await case.kept(path / "data", unsafe), f"{name}: kept without a flush, so this test shows nothing"


async def test_a_power_cut_of_the_whole_system_undoes_nothing(tmp_path: Path) -> None:
    """All programs stop between two instructions; only the data that their disk had by then remains."""
    disk, history, stop = (
        Disk(tmp_path),
        History(lambda number, result: is_inverse(photo(number), result)),
        asyncio.Event(),
    )
    settings = {"worker": ["--lease-duration", "3"]}
    with disk.running() as path:
        async with system(path, workers=1, settings=settings) as whole, Client.connect(whole.master) as client:
            uploading = [
                asyncio.create_task(upload_until(stop, client, history, itertools.count(n, 2))) for n in (0, 1)
            ]
            await until(lambda: len(history.acknowledged) >= 8, timeout=60)
            for program in whole.running.values():
                program.send(signal.SIGSTOP)
            await until(lambda: all(is_stopped(program.process.pid) for program in whole.running.values()))
            cut = disk.cut()
            for task in uploading:
                task.cancel()
            await asyncio.gather(*uploading, return_exceptions=True)
            for name in list(whole.running):
                await whole.kill(name)
    with mounted(cut, tmp_path / "after") as path:
        async with system(path, workers=1, settings=settings) as whole, Client.connect(whole.master) as client:
            await settled(client, history)
            history.events = (await client.changes(0)).events
    assert history.violations() == []


async def test_a_power_cut_undoes_only_leases(tmp_path: Path) -> None:
    """Leases are not flushed: leased tasks are done again, the old lease is void, and readers start again."""
    faults, disk = Faults(tmp_path, "power"), Disk(tmp_path)
    with disk.running() as path:
        async with service("db", "--data", str(path / "data"), env=faults.environment) as program:
            async with DbClient.connect(await program.address()) as client:
                await client.create([new_task(), new_task()])
                (settled,) = await client.lease(request())
                await client.settle([finished(settled.id)])
                faults.apply(drop="[.]sqlite-wal$")
                (leased,) = await client.lease(request("other"))
                page = await client.events(0)
                assert faults.dropped == 0, "a lease was flushed"
                assert page.events[-1].kind == "leased"
            cut = disk.cut()
            faults.apply(drop="")
            await program.stop()
    with mounted(cut, tmp_path / "after") as path:
        async with SqliteStore.open(path / "data" / "tasks.sqlite") as store:
            assert (await store.get(settled.task)).state is State.FINISHED
            assert (await store.get(leased.task)).state is State.WAITING
            (again,) = await store.lease(request("third"))
            answers = await store.settle([finished(leased.id), finished(again.id)])
            assert [answer.problem is None for answer in answers] == [False, True]
            assert (await store.events(page.last, known=page.db)).restored
