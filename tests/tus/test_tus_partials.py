"""Uploads in pieces, at their store: in the process itself, and through the client over HTTP."""

import asyncio
import hashlib
import os
import tempfile
import time
from contextlib import AsyncExitStack, contextmanager
from io import FileIO
from pathlib import Path

import pytest

import safelight.storage.files
import safelight.storage.partial.directory
from safelight import serve
from safelight.client.partials import PartialClient
from safelight.errors import Code, Error
from safelight.storage.__main__ import Config, build
from safelight.storage.bucket import BucketStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.partial.bucket import PartialBucket
from safelight.storage.partial.directory import PartialDirectory
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from support.pieces import broken, stream
from support.until import until

DATA = bytes(range(256)) * 12_000  # three pieces for the disk


@pytest.fixture(params=["embedded", "http", "bucket", "bucket over http"])
async def store(request, tmp_path):
    if request.param == "bucket":
        async with (
            BucketStore.at(request.getfixturevalue("bucket_url")) as blobs,
            PartialBucket.at(blobs.bucket, blobs, PartialLimits()) as partials,
        ):
            yield partials
    elif request.param == "embedded":
        async with (
            DirectoryStore.at(tmp_path / "blobs") as blobs,
            PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as partials,
        ):
            yield partials
    else:
        url = request.getfixturevalue("bucket_url") if request.param == "bucket over http" else None
        async with (
            serve.running("storage", Config(port=0, data=str(tmp_path / "storage"), store=url), build) as storage,
            PartialClient.connect(storage.url) as client,
        ):
            yield client


async def refused(code, call):
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.code is code
    return caught.value


async def test_pieces_become_a_blob(store):
    opened = await store.create(NewPartial(size=len(DATA), metadata={"filename": "ä.png"}))
    assert (opened.offset, opened.size, opened.metadata) == (0, len(DATA), {"filename": "ä.png"})
    await store.append(opened.id, 0, stream(DATA[:10], DATA[10:1000]))
    taken = await store.append(opened.id, 1000, stream(DATA[1000:]))
    assert taken.offset == len(DATA)
    blob = await store.finish(opened.id)
    assert blob.digest == hashlib.sha256(DATA).hexdigest()
    assert blob.size == len(DATA)
    assert await store.finish(opened.id) == blob
    closed = await store.close(opened.id, "task-1")
    assert (closed.outcome, closed.offset) == ("task-1", len(DATA))
    assert (await store.close(opened.id, "task-2")).outcome == "task-1"
    error = await refused(Code.CONFLICT, store.append(opened.id, len(DATA), stream(b"")))
    assert error.extra["offset"] == len(DATA)


@contextmanager
def reading_counted(monkeypatch):
    """Count the bytes that are read from files."""
    read, whole = FileIO.read, hashlib.file_digest
    counts = []

    class Counted(FileIO):
        def read(self, *size):
            data = read(self, *size)
            counts.append(len(data))
            return data

    def digest(file, name):
        counts.append(os.fstat(file.fileno()).st_size)
        return whole(file, name)

    monkeypatch.setattr(safelight.storage.files, "FileIO", Counted)
    monkeypatch.setattr(safelight.storage.partial.directory, "FileIO", Counted)
    monkeypatch.setattr(hashlib, "file_digest", digest)
    yield counts
    monkeypatch.undo()


async def test_the_file_of_an_upload_becomes_the_blob_and_is_read_only_after_a_restart(tmp_path, monkeypatch):
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        for restarted in (False, True):
            data = DATA + bytes([restarted])
            async with AsyncExitStack() as stack:
                store = await stack.enter_async_context(
                    PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits())
                )
                opened = await store.create(NewPartial(size=len(data)))
                await store.append(opened.id, 0, stream(data[:1000], data[1000:2_000_000]))
                wrong = f"md5:{hashlib.md5(b'x', usedforsecurity=False).hexdigest()}"
                await refused(Code.DIGEST_MISMATCH, store.append(opened.id, 2_000_000, stream(b"zz"), checksum=wrong))
                file = (tmp_path / "partials" / opened.id / "bytes").stat().st_ino
                if restarted:
                    await stack.aclose()
                    store = await stack.enter_async_context(
                        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits())
                    )
                await store.append(opened.id, 2_000_000, stream(data[2_000_000:]))
                with reading_counted(monkeypatch) as counts:
                    blob = await store.finish(opened.id)
                assert blob.digest == hashlib.sha256(data).hexdigest()
                assert sum(counts) == (len(data) if restarted else 0)
                (placed,) = (tmp_path / "blobs" / "blobs").glob(f"*/{blob.digest}")
                assert placed.stat().st_ino == file


async def test_the_name_of_the_blob_is_flushed_before_the_bytes_are_moved(tmp_path, monkeypatch):
    """What a power cut leaves is either the bytes of the upload or the blob and its name."""
    flush, move, done = os.fsync, os.replace, []

    def flushed(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        flush(descriptor)

    def moved(source, target):
        done.append(Path(target))
        move(source, target)

    async with (
        DirectoryStore.at(tmp_path / "blobs", fresh_for=3600.0) as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(os, "replace", moved)
        digest = (await store.finish(opened.id)).digest
        assert (await store.close(opened.id, "task")).outcome == "task"
        shard = tmp_path / "blobs" / "blobs" / digest[:2]
        assert done == [tmp_path / "partials" / opened.id, shard / digest, shard]


async def test_a_power_cut_may_take_the_outcome_back_and_nothing_else(tmp_path):
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        blob = await store.finish(opened.id)
        assert (await store.close(opened.id, "task")).outcome == "task"
    for left in (None, b"", b"ta", b"\0\0\0\0\0"):
        file = tmp_path / "partials" / opened.id / "outcome"
        file.unlink() if left is None else file.write_bytes(left)
        async with (
            DirectoryStore.at(tmp_path / "blobs") as blobs,
            PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
        ):
            assert (await store.get(opened.id)).outcome == ""
            assert await store.finish(opened.id) == blob
            assert (await store.close(opened.id, "task")).outcome == "task"


async def test_a_finished_upload_keeps_its_blob_until_it_is_closed(tmp_path):
    """Also after a kill, when nothing but the name of the blob is left of the upload."""

    async def collected():
        (freed,) = await blobs.remove([blob.digest], before=time.time() + 3600.0)
        return freed is not None

    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        blob = await store.finish(opened.id)
        assert not await collected()
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        found = await store.get(opened.id)
        assert (found.offset, found.outcome) == (3, "")
        assert not await collected()
        assert await store.finish(opened.id) == blob
        await refused(Code.CONFLICT, store.append(opened.id, 3, stream(b"")))
        assert (await store.close(opened.id, "task")).outcome == "task"
        assert await collected()
        again = await store.create(NewPartial(size=3))
        await store.append(again.id, 0, stream(b"abc"))
        assert await store.finish(again.id) == blob
        await store.delete(again.id)
        assert await collected()


async def test_an_upload_that_was_finished_with_a_stored_blob_takes_no_room(tmp_path):
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        stored = await blobs.put(stream(b"abc"))
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        assert (await store.finish(opened.id)).digest == stored.digest
        assert not (tmp_path / "partials" / opened.id / "bytes").exists()
        assert await store.finish(opened.id) == await store.finish(opened.id)


async def test_blobs_on_another_file_system_get_a_copy(tmp_path):
    here = tmp_path.stat().st_dev  # in memory or on a disk, as the tests were started
    place = next(place for place in map(Path, ("/dev/shm", "/var/tmp")) if place.stat().st_dev != here)  # noqa: S108
    with tempfile.TemporaryDirectory(dir=place, prefix="partials-") as other:
        async with (
            DirectoryStore.at(tmp_path / "blobs") as blobs,
            PartialDirectory.at(Path(other, "partials"), blobs, PartialLimits()) as store,
        ):
            opened = await store.create(NewPartial(size=len(DATA)))
            await store.append(opened.id, 0, stream(DATA))
            blob = await store.finish(opened.id)
            assert blob.digest == hashlib.sha256(DATA).hexdigest()
            assert await store.finish(opened.id) == blob
            assert (await store.close(opened.id, "task")).outcome == "task"
            assert not list(blobs._incoming.iterdir())


async def test_an_upload_leaves_free_what_is_to_stay_free(tmp_path):
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        free = blobs.free()
    async with (
        DirectoryStore.at(tmp_path / "blobs", keep_free=free // 2) as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        await refused(Code.STORAGE_FULL, store.create(NewPartial(size=free * 3 // 4)))
        opened = await store.create(NewPartial(size=len(DATA)))
        blobs._keep_free, blobs._looked = free * 2, 0.0  # others have taken the rest
        await refused(Code.STORAGE_FULL, store.append(opened.id, 0, stream(DATA[:2_000_000], DATA[2_000_000:])))
        blobs._keep_free = 0
        offset = (await store.get(opened.id)).offset
        await store.append(opened.id, offset, stream(DATA[offset:]))
        assert (await store.finish(opened.id)).digest == hashlib.sha256(DATA).hexdigest()


async def test_a_piece_begins_where_the_last_one_ended(store):
    opened = await store.create(NewPartial(size=10))
    await store.append(opened.id, 0, stream(b"0123"))
    for wrong in (0, 3, 5):
        error = await refused(Code.CONFLICT, store.append(opened.id, wrong, stream(b"4")))
        assert error.extra["offset"] == 4
    assert (await store.get(opened.id)).offset == 4


async def test_not_more_than_announced(store):
    opened = await store.create(NewPartial(size=4))
    await refused(Code.TOO_LARGE, store.append(opened.id, 0, stream(b"01", b"2345")))
    assert (await store.get(opened.id)).offset in (0, 2)  # the network may join chunks
    await refused(Code.CONFLICT, store.finish(opened.id))


async def test_what_came_before_a_break_counts(store):
    opened = await store.create(NewPartial(size=len(DATA)))
    with pytest.raises((Error, ConnectionError)):
        await store.append(opened.id, 0, broken(DATA[:2_000_000], DATA[2_000_000:2_000_100]))

    async def has_all():  # over HTTP the service notices the break in its own time
        return (await store.get(opened.id)).offset == 2_000_100

    await until(has_all)
    await store.append(opened.id, 2_000_100, stream(DATA[2_000_100:]))
    assert (await store.finish(opened.id)).digest == hashlib.sha256(DATA).hexdigest()


async def test_a_piece_with_a_wrong_checksum_does_not_count(store):
    opened = await store.create(NewPartial(size=len(DATA)))
    await store.append(opened.id, 0, stream(b"abc"))
    for algorithm in ("sha1", "sha256", "sha512", "md5"):
        wrong = f"{algorithm}:{hashlib.new(algorithm, b'x').hexdigest()}"
        await refused(Code.DIGEST_MISMATCH, store.append(opened.id, 3, stream(DATA[3:]), checksum=wrong))
        assert (await store.get(opened.id)).offset == 3
    right = f"sha256:{hashlib.sha256(DATA[3:]).hexdigest()}"
    assert (await store.append(opened.id, 3, stream(DATA[3:]), checksum=right)).offset == len(DATA)
    await refused(Code.INVALID_REQUEST, store.append(opened.id, len(DATA), stream(b""), checksum="crc32:00"))


async def test_one_piece_at_a_time(store):
    opened = await store.create(NewPartial(size=8))
    gate = asyncio.Event()

    async def arrive():
        while True:
            try:
                return await store.append(opened.id, 0, stream(b"0123", b"4567", gate=gate))
            except Error as error:  # what asks below whether this has begun was first
                assert error.extra.get("busy")
                await asyncio.sleep(0.01)

    arriving = asyncio.create_task(arrive())

    async def is_busy():
        return "busy" in (await refused(Code.CONFLICT, store.append(opened.id, 5, stream(b"x")))).extra

    await until(is_busy)
    for call in (store.append(opened.id, 0, stream(b"x")), store.finish(opened.id), store.close(opened.id, "early")):
        assert (await refused(Code.CONFLICT, call)).extra["busy"] is True
    assert (await store.get(opened.id)).offset == 0
    gate.set()
    assert (await arriving).offset == 8


async def test_deleted_is_gone(store):
    opened = await store.create(NewPartial(size=8))
    await store.append(opened.id, 0, stream(b"0123"))
    await store.delete(opened.id)
    for call in (store.get(opened.id), store.finish(opened.id), store.delete(opened.id), store.get("../etc")):
        await refused(Code.NOT_FOUND, call)


async def test_so_many_and_no_more(tmp_path):
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits(count=2)) as store,
    ):
        first = await store.create(NewPartial(size=1))
        await store.create(NewPartial(size=1))
        await refused(Code.TOO_MANY_REQUESTS, store.create(NewPartial(size=1)))
        await store.delete(first.id)
        await refused(Code.STORAGE_FULL, store.create(NewPartial(size=1 << 60)))


async def opened_by(store, tenant):
    """Open uploads of a tenant until one is refused; return them."""
    opened = []
    while len(opened) < 100:
        try:
            opened.append(await store.create(NewPartial(size=1, metadata={"tenant": tenant})))
        except Error as error:
            assert error.code is Code.TOO_MANY_REQUESTS
            break
    return opened


@pytest.mark.parametrize("backend", ["directory", "bucket"])
async def test_no_tenant_takes_the_places_of_all(tmp_path, request, backend):
    limits = PartialLimits(count=16)
    async with AsyncExitStack() as stack:

        async def start():
            if backend == "bucket":
                blobs = await stack.enter_async_context(BucketStore.at(request.getfixturevalue("bucket_url")))
                return await stack.enter_async_context(PartialBucket.at(blobs.bucket, blobs, limits))
            blobs = await stack.enter_async_context(DirectoryStore.at(tmp_path / "blobs"))
            return await stack.enter_async_context(PartialDirectory.at(tmp_path / "partials", blobs, limits))

        store = await start()
        first = await opened_by(store, "first")
        assert len(first) == 8
        await store.delete(first.pop().id)
        await store.append(first[0].id, 0, stream(b"x"))
        await store.close(first.pop(0).id, "task")
        assert len(await opened_by(store, "first")) == 2
        assert len(await opened_by(store, "second")) == 4
        assert len(await opened_by(store, "third")) == 2
        if backend == "directory":
            await stack.aclose()
            assert await opened_by(await start(), "third") == []


async def test_what_is_closed_takes_no_place(tmp_path):
    async with AsyncExitStack() as stack:
        blobs = await stack.enter_async_context(DirectoryStore.at(tmp_path / "blobs"))
        where = tmp_path / "partials"
        async with PartialDirectory.at(where, blobs, PartialLimits(count=1)) as store:
            for number in range(3):
                opened = await store.create(NewPartial(size=1))
                await store.append(opened.id, 0, stream(b"x"))
                assert (await store.close(opened.id, f"task {number}")).outcome
                assert (await store.close(opened.id, "again")).outcome == f"task {number}"
        async with PartialDirectory.at(where, blobs, PartialLimits(count=1)) as store:
            await store.create(NewPartial(size=1))


async def test_abandoned_ones_expire_and_touched_ones_stay(tmp_path):
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            left = await store.create(NewPartial(size=2))
            held = await store.create(NewPartial(size=2))
            (tmp_path / "partials" / ("f" * 32)).mkdir()
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits(keep=0.5)) as store:
            gate = asyncio.Event()
            arriving = asyncio.create_task(store.append(held.id, 0, stream(b"0", b"1", gate=gate)))
            await until(lambda: not (tmp_path / "partials" / left.id).exists())
            gate.set()
            assert (await arriving).offset == 2
            await refused(Code.NOT_FOUND, store.get(left.id))


async def test_after_a_crash_an_unproven_piece_is_cut_off(tmp_path):
    """The files are what a kill leaves: a piece with a checksum half written, one without wholly."""
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            opened = await store.create(NewPartial(size=10))
            await store.append(opened.id, 0, stream(b"0123"))
            files = tmp_path / "partials" / opened.id
        (files / "verified").write_text("4")
        (files / "bytes").write_bytes(b"0123xx")
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            assert (await store.get(opened.id)).offset == 4
        (files / "bytes").write_bytes(b"012345")
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            assert (await store.get(opened.id)).offset == 6
            await store.append(opened.id, 6, stream(b"6789"))
            assert (await store.finish(opened.id)).digest == hashlib.sha256(b"0123456789").hexdigest()


async def test_cancelled_in_the_middle_it_keeps_order(tmp_path):
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        opened = await store.create(NewPartial(size=len(DATA)))
        offset = 0
        for end in (700_000, 1_900_000, 2_500_000):
            arriving = asyncio.create_task(
                store.append(opened.id, offset, stream(DATA[offset:end], b"never", gate=asyncio.Event()))
            )
            for _ in range(end % 7):  # somewhere in the middle
                await asyncio.sleep(0)
            arriving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await arriving

            async def is_free():  # the last of it is written after the call has gone
                try:
                    await store.append(opened.id, (await store.get(opened.id)).offset, stream())
                except Error as error:
                    return not error.extra["busy"]
                return True

            await until(is_free)
            offset = (await store.get(opened.id)).offset
        await store.append(opened.id, offset, stream(DATA[offset:]))
        assert (await store.finish(opened.id)).digest == hashlib.sha256(DATA).hexdigest()
