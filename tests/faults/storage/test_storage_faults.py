"""Test storage on a machine whose clock, disk or clients fail."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from contextlib import AsyncExitStack

import pytest

from faults.shim import Faults
from safelight.client.base import session
from safelight.client.db import DbClient
from safelight.client.partials import PartialClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.storage.bucket import BucketStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.partial.bucket import PartialBucket
from safelight.storage.partial.directory import PartialDirectory
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from support.programs.processes import service
from support.programs.until import until
from support.tasks import new_task

pytestmark = pytest.mark.slow

DAY = 86400.0


async def stream(*chunks: bytes):
    for chunk in chunks:
        yield chunk


async def gone(client: StorageClient, digest: str) -> bool:
    try:
        await client.read(digest)
    except Error as error:
        return error.code is Code.NOT_FOUND
    return False


async def test_a_clock_that_is_weeks_ahead_collects_nothing(tmp_path):
    """Neither blobs nor partial uploads go, over a restart or while it runs, until a person confirms the clock."""
    faults = Faults(tmp_path, "storage")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(service("keyvaluestore", "--data", str(tmp_path / "keyvaluestore")))
        address = (await store.address()).removeprefix("http://")
        common = [address, "--data"]
        db = await stack.enter_async_context(service("db", *common, str(tmp_path / "db")))
        await db.log("endpoint registered")
        argv = [*common, str(tmp_path / "storage")]
        for offset in (0.0, 32 * DAY):
            faults.apply(clock_offset=offset)
            async with service("storage", *argv, env=faults.environment) as program:
                await program.log("endpoint registered")
                async with StorageClient.connect(await program.address()) as client:
                    if not offset:
                        blob = await client.put(b"not referenced yet")
                        async with PartialClient.connect(await program.address()) as partials:
                            upload = await partials.create(NewPartial(size=9))
                    else:
                        await program.log("Nothing is deleted until the clock has been steady")
                    assert (await client.collect()).removed == 0
                    faults.apply(clock_offset=offset + 40 * DAY)
                    assert (await client.collect()).removed == 0
                    assert not await gone(client, blob.digest)
                    if offset:
                        async with DbClient.connect(await db.address()) as tasks:
                            await tasks.create([new_task()])  # so that db has references to report
                            await tasks.confirm_clock()
                        assert (await client.collect()).removed == 1
                        assert await gone(client, blob.digest)
                        continue
                    async with PartialClient.connect(await program.address()) as partials:
                        assert (await partials.get(upload.id)).offset == 0
                await program.stop()


async def test_a_collection_that_fails_on_a_full_disk_is_logged_and_retried(tmp_path):
    faults = Faults(tmp_path, "storage")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(service("keyvaluestore", "--data", str(tmp_path / "keyvaluestore")))
        address = (await store.address()).removeprefix("http://")
        db = await stack.enter_async_context(service("db", address, "--data", str(tmp_path / "db")))
        await db.log("endpoint registered")
        data = tmp_path / "storage"
        data.mkdir()
        (data / "db").touch()  # empty, as after writing to a full disk
        argv = [address, "--data", str(data), "--grace", "0s", "--collect-every", "0.3s"]
        faults.apply(write_error=errno.ENOSPC, only="/storage/db")
        program = await stack.enter_async_context(service("storage", *argv, env=faults.environment))
        async with StorageClient.connect(await program.address()) as client:
            blob = await client.put(b"nobody refers to this")
            made = await stack.enter_async_context(DbClient.connect(await db.address()))
            await made.create([new_task()])  # so that db has references to report
            await program.log("collection failed and is tried again")
            assert not await gone(client, blob.digest)
            faults.apply(write_error=0)
            await until(lambda: gone(client, blob.digest), timeout=30)
        assert (data / "db").read_text().strip()


async def test_after_a_failed_flush_an_upload_ends_where_it_was_flushed(tmp_path):
    faults = Faults(tmp_path, "storage")
    async with service("storage", "--data", str(tmp_path / "data"), env=faults.environment) as program:
        async with PartialClient.connect(await program.address()) as partials:
            upload = await partials.create(NewPartial(size=9))
            await partials.append(upload.id, 0, stream(b"abc"))
            faults.apply(flush_error=errno.EIO)
            with pytest.raises(Error) as failed:
                await partials.append(upload.id, 3, stream(b"def"))
            assert failed.value.code is Code.UNAVAILABLE
            assert (await partials.get(upload.id)).offset == 3
            faults.apply(flush_error=0)
            assert (await partials.get(upload.id)).offset == 3
            assert (await partials.append(upload.id, 3, stream(b"DEFghi"))).offset == 9
            blob = await partials.finish(upload.id)
        async with StorageClient.connect(await program.address()) as client:
            assert await client.read(blob.digest) == b"abcDEFghi"


async def test_an_upload_that_cannot_become_a_blob_keeps_its_bytes(tmp_path):
    faults = Faults(tmp_path, "storage")
    async with service("storage", "--data", str(tmp_path / "data"), env=faults.environment) as program:
        async with PartialClient.connect(await program.address()) as partials:
            upload = await partials.create(NewPartial(size=6))
            await partials.append(upload.id, 0, stream(b"abcdef"))
            for only in ("/partials/", "/blobs/", ""):
                faults.apply(flush_error=errno.EIO, only=only)
                with pytest.raises(Error, match="failed"):
                    await partials.finish(upload.id)
                assert (await partials.get(upload.id)).offset == 6, only
            faults.apply(flush_error=0)
            blob = await partials.finish(upload.id)
            assert (await partials.close(upload.id, "task")).outcome == "task"
        async with StorageClient.connect(await program.address()) as client:
            assert await client.read(blob.digest) == b"abcdef"


async def test_an_upload_never_expires_while_it_is_continued(tmp_path, monkeypatch):
    """The append starts after the search for expired uploads has found this upload."""
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        limits = PartialLimits(keep=3600.0)
        async with PartialDirectory.at(tmp_path / "partials", blobs, limits) as store:
            upload = await store.create(NewPartial(size=4))
            long_ago = time.time() - 7200.0
            os.utime(tmp_path / "partials" / upload.id / "bytes", (long_ago, long_ago))
            monkeypatch.setattr(store._ages, "before", lambda _name, keep: time.time() - keep)
            search, loop = store._files.expired, asyncio.get_running_loop()

            def found_and_continued(before: float) -> list[str]:
                found = search(before)
                asyncio.run_coroutine_threadsafe(store.append(upload.id, 0, stream(b"ab")), loop).result()
                return found

            monkeypatch.setattr(store._files, "expired", found_and_continued)
            await store.expire()
            assert (await store.get(upload.id)).offset == 2


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["listed", "looked at once more"])
async def test_an_upload_in_a_bucket_never_expires_while_it_is_continued(bucket_url, monkeypatch, moment):
    """Another instance continues the upload after the search has listed it, or right before the deletion."""
    async with (
        BucketStore.at(bucket_url) as blobs,
        PartialBucket.at(blobs.bucket, blobs, PartialLimits(keep=3600.0)) as store,
        PartialBucket.at(blobs.bucket, blobs, PartialLimits(keep=3600.0)) as other,
    ):
        continued, left = await store.create(NewPartial(size=4)), await store.create(NewPartial(size=4))
        uploaded = time.time()
        await until(lambda: time.time() > uploaded + 2.0)  # a bucket stores times in whole seconds
        monkeypatch.setattr(store._ages, "before", lambda _name, _keep: uploaded + 1.0)
        listing, replace = store._bucket.listing, store._states.replace

        async def listed(prefix):
            async for each in listing(prefix):
                yield each
            if prefix.endswith(continued.id):
                assert (await other.append(continued.id, 0, stream(b"ab"))).offset == 2

        async def replaced(state):
            if state.id == continued.id:
                assert (await other.append(continued.id, 0, stream(b"ab"))).offset == 2
            return await replace(state)

        if moment == "listed":
            monkeypatch.setattr(store._bucket, "listing", listed)
        else:
            monkeypatch.setattr(store._states, "replace", replaced)
        assert await store.expire() == 1
        monkeypatch.undo()
        assert (await other.append(continued.id, 2, stream(b"cd"))).offset == 4
        assert await other.finish(continued.id)
        with pytest.raises(Error) as gone:
            await other.get(left.id)
        assert gone.value.code is Code.NOT_FOUND
        assert not [key async for key, _ in store._bucket.listing(f"partials/{left.id}")]


async def test_each_client_that_leaves_during_a_download_is_logged_at_debug_level(tmp_path):
    argv = ["--data", str(tmp_path / "data"), "--log-level", "debug"]
    async with service("storage", *argv) as program, session() as http:
        address = await program.address()
        async with StorageClient.connect(address) as client:
            blob = await client.put(b"\xff" * (24 << 20))
        for _ in range(20):
            async with http.get(f"{address}/blobs/{blob.digest}") as answer:
                await answer.content.readany()
                answer.close()
        async with asyncio.timeout(30):
            while (
                sum("was interrupted" in line["message"] or "has left" in line["message"] for line in program.lines)
                < 20
            ):
                await program.log("", after=len(program.lines))
        assert await program.stop(signal.SIGTERM) == 0
        loud = [line for line in program.lines if line.get("level", "").lower() in ("warning", "error", "critical")]
        assert loud == []
        assert not any("Traceback" in str(line) for line in program.lines)


async def test_a_full_disk_leaves_no_half_written_records_of_uploads(tmp_path):
    """An upload that could not be opened can be opened later, and one that could not be closed, closed."""
    faults, new = Faults(tmp_path, "storage"), NewPartial(id="ab" * 16, size=9)
    async with service("storage", "--data", str(tmp_path / "data"), env=faults.environment) as program:
        address = await program.address()
        async with PartialClient.connect(address) as partials:
            upload = await partials.create(NewPartial(size=6))
            await partials.append(upload.id, 0, stream(b"abc"))
            faults.apply(write_error=errno.ENOSPC, only="/(record|outcome)")
            with pytest.raises(Error) as full:
                await partials.create(new)
            assert full.value.code is Code.STORAGE_FULL
            with pytest.raises(Error) as unknown:
                await partials.get(new.id)
            assert unknown.value.code is Code.NOT_FOUND
            await partials.append(upload.id, 3, stream(b"def"))
            blob = await partials.finish(upload.id)
            with pytest.raises(Error) as full:
                await partials.close(upload.id, "task")
            assert full.value.code is Code.STORAGE_FULL
            assert not (await partials.get(upload.id)).outcome
            faults.apply(write_error=0)
            assert (await partials.close(upload.id, "task")).outcome == "task"
            assert (await partials.create(new)).offset == 0
        async with StorageClient.connect(address) as client:
            assert await client.read(blob.digest) == b"abcdef"
