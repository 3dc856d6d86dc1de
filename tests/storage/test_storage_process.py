"""Test storage as a process: it is killed during uploads, and stopped during an upload."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec
import pytest

from safelight import serve
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.errors import Error
from safelight.storage.__main__ import Config, build
from safelight.wire import NewTask
from storage.content import digest_of, files, made
from support.programs.processes import service


@pytest.mark.slow
async def test_acknowledged_blobs_survive_kills_and_no_partial_ones_appear(tmp_path):
    acknowledged: dict[str, int] = {}
    for number, kill_after in enumerate((3, 25, 60)):
        async with service("storage", "--data", str(tmp_path)) as process, session() as http:
            storage = StorageClient(Connection(http, Several(await process.address()), retry_for=0.0))
            assert files(tmp_path, "incoming") == []
            for digest, size in acknowledged.items():
                async with storage.open(digest, verify=True) as answer:
                    assert int(answer.headers["Content-Length"]) == size
            seeds = iter(range(1000 * number, 1000 * number + 400))
            count = len(acknowledged)

            async def upload(storage=storage, process=process, seeds=seeds, enough=count + kill_after) -> None:
                for seed in seeds:
                    data = made((1000, 100_000, 3_000_000)[seed % 3], seed)
                    try:
                        blob = await storage.put(data)
                    except Error:
                        return
                    acknowledged[blob.digest] = len(data)
                    if len(acknowledged) == enough:
                        process.send(signal.SIGKILL)

            await asyncio.gather(*(upload() for _ in range(8)))
            assert await process.ended() == -signal.SIGKILL
        visible = {path.name: path.read_bytes() for path in files(tmp_path, "blobs")}
        assert set(acknowledged) <= set(visible)
        assert all(digest_of(data) == name for name, data in visible.items())


async def test_a_disk_on_which_nothing_fits_is_refused(tmp_path, capsys):
    config = Config(port=0, data=str(tmp_path / "new" / "data"), keep_free=1 << 60)
    with pytest.raises(SystemExit, match="2"):
        async with serve.running("storage", config, build):
            pass
    assert "no photo fits. Give storage a larger disk" in capsys.readouterr().err


async def test_sigterm_lets_an_upload_in_progress_end(tmp_path):
    data = made(2_000_000)
    async with service("storage", "--data", str(tmp_path)) as process:
        url = await process.address()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(
            b"POST /blobs HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
        )
        async with asyncio.timeout(60):
            assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # the upload has begun
        writer.write(data[:1_000_000])
        process.send(signal.SIGTERM)
        await process.log("is stopping")
        writer.write(data[1_000_000:])
        async with asyncio.timeout(60):
            assert b" 201 " in await reader.readline()
        writer.close()
        assert await process.ended() == 0
    (path,) = files(tmp_path, "blobs")
    assert path.name == digest_of(data)


@pytest.mark.slow
async def test_without_db_a_collection_removes_nothing_and_says_why(tmp_path):
    async with (
        service("keyvaluestore", "--data", str(tmp_path / "keyvaluestore")) as keyvaluestore,
        session() as http,
    ):
        address = (await keyvaluestore.address()).removeprefix("http://")
        async with (
            service("db", address, "--data", str(tmp_path / "db")) as db,
            service("storage", address, "--data", str(tmp_path / "storage"), "--grace", "0") as process,
        ):
            await db.log("Database endpoint registered")
            url = await process.address()
            storage = StorageClient(Connection(http, Several(url), retry_for=0.0))
            blob = await storage.put(b"picture")
            await db.stop()
            with pytest.raises(Error, match="db"):
                await storage.collect()
            assert await storage.read(blob.digest) == b"picture"
            async with http.get(f"{url}/readyz") as answer:
                assert answer.status == 200


@pytest.mark.slow
async def test_a_collection_asks_db_for_references(tmp_path):
    async with service("keyvaluestore", "--data", str(tmp_path / "keyvaluestore")) as keyvaluestore:
        address = (await keyvaluestore.address()).removeprefix("http://")
        async with (
            service("db", address, "--data", str(tmp_path / "db")) as db_process,
            service("storage", address, "--data", str(tmp_path / "storage"), "--grace", "0") as process,
            StorageClient.connect(await process.address()) as storage,
            DbClient.connect(await db_process.address()) as db,
        ):
            await db_process.log("Database endpoint registered")
            wanted, unwanted = await storage.put(b"wanted"), await storage.put(b"unwanted")
            task = NewTask(input=wanted, recipe="invert", recipe_digest="0" * 64, spec=msgspec.Raw(b"{}"))
            await db.create([task])
            collected = await storage.collect()
            assert (collected.removed, collected.freed) == (1, len(b"unwanted"))
            assert await storage.read(wanted.digest) == b"wanted"
            with pytest.raises(Error):
                await storage.read(unwanted.digest)


@pytest.mark.slow
async def test_memory_stays_constant(tmp_path):
    def resident(pid: int) -> int:
        fields = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in fields if line.startswith("VmHWM"))) * 1024

    async def zeros():
        for _ in range(256):
            yield bytes(1 << 20)

    async with service("storage", "--data", str(tmp_path)) as process:
        async with StorageClient.connect(await process.address()) as storage:
            before = resident(process.process.pid)
            blob = await storage.put(zeros())
            async with storage.open(blob.digest, verify=True) as answer:
                assert sum([len(chunk) async for chunk in answer.chunks()]) == 256 << 20
        assert resident(process.process.pid) - before < 48 << 20
