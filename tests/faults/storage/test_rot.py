"""Test a result that is damaged or lost in storage: it is neither sent nor reused, and it is made again."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from faults.power import Disk
from faults.shim import Faults
from safelight.client.accounts import AccountClient
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.client.db import DbClient
from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.storage.directory import DirectoryStore
from safelight.storage.maintenance.remake import make_again
from safelight.storage.maintenance.scrubber import Scrubber
from safelight.wire import State
from support.leases import finish, take
from support.photos import is_inverse, photo
from support.programs.processes import service
from support.programs.system import System, system

pytestmark = pytest.mark.slow


def blob(whole: System, digest: str) -> Path:
    return whole.data / "storage" / "blobs" / digest[:2] / digest


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


async def result(client: Client, id: str) -> bytes:
    async with client.result(id) as answer:
        return await answer.read()


async def restarted(whole: System) -> None:
    """Restart storage, so that it forgets which blobs it has verified."""
    await whole.kill("storage")
    await (await whole.start("storage")).address()
    await whole.ready()


@pytest.mark.parametrize("loss", ["rotten", "gone", "gone with the photo"])
async def test_a_lost_result_is_not_reused(tmp_path: Path, loss: str) -> None:
    async with system(tmp_path, workers=1) as whole, Client.connect(whole.master) as client:
        first = await client.wait((await client.upload(photo(1))).id, timeout=60)
        again = await client.wait((await client.upload(photo(1))).id, timeout=60)
        assert again.reused
        path = blob(whole, first.outputs[0].digest)
        if loss == "rotten":
            spoil(path)
        else:
            path.unlink()
        if loss == "gone with the photo":
            blob(whole, first.input.digest).unlink()
        await restarted(whole)
        with pytest.raises(Error) as refused:
            await result(client, first.id)
        assert refused.value.code in (Code.DAMAGED_BLOB, Code.NOT_FOUND)
        anew = await client.wait((await client.upload(photo(1))).id, timeout=60)
        assert anew.state is State.FINISHED
        assert not anew.reused
        assert is_inverse(photo(1), await result(client, anew.id))
        assert is_inverse(photo(1), await result(client, first.id))  # the new result has the same bytes


async def test_a_large_damaged_result_is_not_reused(tmp_path: Path) -> None:
    """The blob is too large to be verified before the first read."""
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(system(tmp_path))
        client = await stack.enter_async_context(Client.connect(whole.master))
        storage = await stack.enter_async_context(StorageClient.connect(whole.address("storage")))
        first = await client.upload(photo(3))
        (lease,) = await take(client)
        await finish(client, storage, lease, {"image": os.urandom(33 << 20)})
        assert (await client.upload(photo(3))).reused
        spoil(blob(whole, (await client.task(first.id)).outputs[0].digest))
        await restarted(whole)
        anew = await client.upload(photo(3))
        assert (anew.state, anew.reused) == (State.WAITING, False)


async def test_a_damaged_photo_is_replaced_when_it_is_uploaded_again(tmp_path: Path) -> None:
    async with system(tmp_path, workers=1) as whole, Client.connect(whole.master) as client:
        first = await client.wait((await client.upload(photo(2))).id, timeout=60)
        assert first.input is not None
        spoil(blob(whole, first.input.digest))
        await restarted(whole)
        await client.upload(photo(2))
        async with client.original(first.id) as answer:
            assert await answer.read() == photo(2)


async def test_a_large_blob_is_verified_while_it_is_sent(tmp_path: Path) -> None:
    """The last bytes of a damaged one are never sent; the next request is refused, until the bytes are stored again."""
    data, store = os.urandom(33 << 20), tmp_path / "storage"
    async with service("storage", "--data", str(store)) as program:
        async with StorageClient.connect(await program.address()) as client:
            digest = (await client.put(data)).digest
            assert await client.read(digest) == data
        await program.stop()
    spoil(store / "blobs" / digest[:2] / digest)
    async with service("storage", "--data", str(store)) as program:
        async with StorageClient.connect(await program.address()) as client:
            received = 0
            async with client.open(digest) as answer:
                with pytest.raises((aiohttp.ClientError, Error)):
                    async for chunk in answer.chunks():
                        received += len(chunk)
            assert received < len(data)
            await program.log("is damaged")
            with pytest.raises(Error) as refused:
                await client.read(digest)
            assert refused.value.code is Code.DAMAGED_BLOB
            await client.put(data)
            assert await client.read(digest) == data
        await program.stop()


async def test_a_blob_that_the_disk_cannot_read_is_replaced_unless_it_can_read_none(tmp_path: Path) -> None:
    faults, store = Faults(tmp_path, "storage"), tmp_path / "storage"
    argv = ["--data", str(store)]
    async with service("storage", *argv) as program, StorageClient.connect(await program.address()) as client:
        digests = [(await client.put(data)).digest for data in (b"lost", b"sound")]
        await program.stop()
    async with service("storage", *argv, env=faults.environment) as program, session() as http:
        client = StorageClient(Connection(http, Several(await program.address()), retry_for=0.0))
        for only, code in (("/blobs/", Code.UNAVAILABLE), (digests[0], Code.DAMAGED_BLOB)):
            faults.apply(read_error=errno.EIO, only=only)
            with pytest.raises(Error) as refused:
                async with client.open(digests[0], verify=True):
                    pass
            assert refused.value.code is code
        assert (await client.put(b"lost")).new
        assert not (await client.put(b"sound")).new
        faults.apply(read_error=0)
        assert [await client.read(digest) for digest in digests] == [b"lost", b"sound"]


async def test_a_scrub_reads_the_disk_instead_of_the_page_cache(tmp_path: Path) -> None:
    disk, data = Disk(tmp_path), os.urandom(1 << 16)

    async def once() -> AsyncIterator[bytes]:
        yield data

    with disk.running() as root:
        async with DirectoryStore.at(root / "storage") as store:
            digest = (await store.put(once())).digest
            image = tmp_path / "disk.img"
            with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as device:
                device[device.find(data[4096:8192])] ^= 0xFF
            path = root / "storage" / "blobs" / digest[:2] / digest
            assert path.read_bytes() == data
            assert await Scrubber(store, 1 << 30, lambda _size, *, damaged: None, None).walk() == {digest}
            assert path.read_bytes() != data


async def test_a_scrub_finds_damage_and_has_results_made_again(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(system(tmp_path, workers=1))
        client = await stack.enter_async_context(Client.connect(whole.master))
        done = [await client.wait((await client.upload(photo(n))).id, timeout=60) for n in (3, 4)]
        broken = done[1].outputs[0].digest
        assert done[0].input is not None
        original = done[0].input.digest
        spoil(blob(whole, broken))
        spoil(blob(whole, original))
        # Now test the scrub itself, on the directory of the stopped storage.
        await whole.kill("storage")
        address = f"127.0.0.1:{whole.ports['db']}"
        db = await stack.enter_async_context(DbClient.connect(address))
        accounts = await stack.enter_async_context(AccountClient.connect(address))
        counted: list[bool] = []
        made: list[int] = []

        async def again(lost: set[str]) -> int:
            made.append(await make_again(db, accounts, lost))
            return made[-1]

        async with DirectoryStore.at(whole.data / "storage") as store:
            scrubber = Scrubber(store, 1 << 30, lambda _size, *, damaged: counted.append(damaged), again)
            assert await scrubber.walk() == {broken, original}
        assert counted.count(True) == 2
        assert counted.count(False) >= 2
        assert made == [1]
        await (await whole.start("storage")).address()
        await whole.ready()
        after = 0
        while True:
            page = await client.changes(after, wait=30.0)
            if any(event.kind == "finished" and event.internal for event in page.events):
                break
            after = page.last
        assert is_inverse(photo(4), await result(client, done[1].id))
