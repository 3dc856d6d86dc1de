"""Test the store of partial uploads: directly in the process, and through the client over HTTP."""

import asyncio
import hashlib
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

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
from support.bodies import broken, stream
from support.programs.until import until
from support.servers import ALL_SLOW, BUCKETS
from support.tasks import refused

DATA = bytes(range(256)) * 12_000  # written to the disk in three chunks


@pytest.fixture(params=["embedded", "http", pytest.param("bucket over http", marks=pytest.mark.slow), *ALL_SLOW])
async def store(request, tmp_path):
    if request.param in BUCKETS:
        async with (
            BucketStore.at(request.getfixturevalue(BUCKETS[request.param])) as blobs,
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


async def test_chunks_become_a_blob(store):
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


async def test_a_chunk_must_begin_where_the_last_one_ended(store):
    opened = await store.create(NewPartial(size=10))
    await store.append(opened.id, 0, stream(b"0123"))
    for wrong in (0, 3, 5):
        error = await refused(Code.CONFLICT, store.append(opened.id, wrong, stream(b"4")))
        assert error.extra["offset"] == 4
    assert (await store.get(opened.id)).offset == 4


async def test_more_than_announced_does_not_fit(store):
    opened = await store.create(NewPartial(size=4))
    await refused(Code.TOO_LARGE, store.append(opened.id, 0, stream(b"01", b"2345")))
    assert (await store.get(opened.id)).offset in (0, 2)  # the network may join chunks
    await refused(Code.CONFLICT, store.finish(opened.id))


async def test_bytes_before_a_break_are_kept(store):
    opened = await store.create(NewPartial(size=len(DATA)))
    with pytest.raises((Error, ConnectionError)):
        await store.append(opened.id, 0, broken(DATA[:2_000_000], DATA[2_000_000:2_000_100]))

    async def has_all():  # over HTTP, the service notices the break later
        return (await store.get(opened.id)).offset == 2_000_100

    await until(has_all)
    await store.append(opened.id, 2_000_100, stream(DATA[2_000_100:]))
    assert (await store.finish(opened.id)).digest == hashlib.sha256(DATA).hexdigest()


async def test_a_chunk_with_a_wrong_checksum_is_discarded(store):
    opened = await store.create(NewPartial(size=len(DATA)))
    await store.append(opened.id, 0, stream(b"abc"))
    for algorithm in ("sha1", "sha256", "sha512", "md5"):
        wrong = f"{algorithm}:{hashlib.new(algorithm, b'x').hexdigest()}"
        await refused(Code.DIGEST_MISMATCH, store.append(opened.id, 3, stream(DATA[3:]), checksum=wrong))
        assert (await store.get(opened.id)).offset == 3
    right = f"sha256:{hashlib.sha256(DATA[3:]).hexdigest()}"
    assert (await store.append(opened.id, 3, stream(DATA[3:]), checksum=right)).offset == len(DATA)
    await refused(Code.INVALID_REQUEST, store.append(opened.id, len(DATA), stream(b""), checksum="crc32:00"))


async def test_one_chunk_at_a_time(store):
    opened = await store.create(NewPartial(size=8))
    gate = asyncio.Event()

    async def arrive():
        while True:
            try:
                return await store.append(opened.id, 0, stream(b"0123", b"4567", gate=gate))
            except Error as error:  # the request below was earlier
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


async def test_a_deleted_upload_is_gone(store):
    opened = await store.create(NewPartial(size=8))
    await store.append(opened.id, 0, stream(b"0123"))
    await store.delete(opened.id)
    for call in (store.get(opened.id), store.finish(opened.id), store.delete(opened.id), store.get("../etc")):
        await refused(Code.NOT_FOUND, call)


async def test_the_number_of_uploads_is_limited(tmp_path):
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


@pytest.mark.parametrize("backend", ["directory", pytest.param("bucket", marks=pytest.mark.slow)])
async def test_uploads_that_are_opened_at_the_same_time_are_limited(tmp_path, request, backend):
    limits = PartialLimits(count=16)
    async with AsyncExitStack() as stack:
        if backend == "bucket":
            blobs = await stack.enter_async_context(BucketStore.at(request.getfixturevalue("bucket_url")))
            store = await stack.enter_async_context(PartialBucket.at(blobs.bucket, blobs, limits))
        else:
            blobs = await stack.enter_async_context(DirectoryStore.at(tmp_path / "blobs"))
            store = await stack.enter_async_context(PartialDirectory.at(tmp_path / "partials", blobs, limits))
        new = NewPartial(size=1, metadata={"tenant": "first"})
        opened = await asyncio.gather(*(store.create(new) for _ in range(30)), return_exceptions=True)
        errors = [each for each in opened if isinstance(each, Error)]
        assert len(opened) - len(errors) == 8
        assert {each.code for each in errors} == {Code.TOO_MANY_REQUESTS}
        assert len(await opened_by(store, "second")) == 4


@pytest.mark.parametrize("backend", ["directory", "bucket"])
async def test_no_tenant_takes_all_places(tmp_path, request, backend):
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


@pytest.mark.parametrize("backend", ["directory", "bucket"])
async def test_closed_uploads_take_no_place(tmp_path, request, backend):
    limits = PartialLimits(count=1)
    async with AsyncExitStack() as stack:
        if backend == "bucket":
            blobs = await stack.enter_async_context(BucketStore.at(request.getfixturevalue("bucket_url")))
        else:
            blobs = await stack.enter_async_context(DirectoryStore.at(tmp_path / "blobs"))

        def start():
            if isinstance(blobs, BucketStore):
                return PartialBucket.at(blobs.bucket, blobs, limits)
            return PartialDirectory.at(tmp_path / "partials", blobs, limits)

        async with start() as store:
            for number in range(3):
                opened = await store.create(NewPartial(size=1))
                await refused(Code.TOO_MANY_REQUESTS, store.create(NewPartial(size=1)))
                await store.append(opened.id, 0, stream(b"x"))
                assert (await store.close(opened.id, f"task {number}")).outcome
                assert (await store.close(opened.id, "again")).outcome == f"task {number}"
            await store.delete(opened.id)
        async with start() as store:
            await store.create(NewPartial(size=1))
            await refused(Code.TOO_MANY_REQUESTS, store.create(NewPartial(size=1)))


async def test_abandoned_uploads_expire_and_continued_ones_stay(tmp_path):
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


async def test_after_a_crash_a_chunk_with_an_unverified_checksum_is_removed(tmp_path):
    """The files are in the state after a kill: a chunk with a checksum is half written, one without is complete."""
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


async def test_the_mark_of_a_checksum_is_removed_durably(tmp_path, monkeypatch):
    """After a power cut, a directory has the names of its last flush."""
    flush, durable = os.fsync, {}

    def flushed(file):
        path = Path(f"/proc/self/fd/{file}").readlink()
        if path.is_dir():
            durable[path.name] = {each.name for each in path.iterdir()}
        flush(file)

    monkeypatch.setattr(os, "fsync", flushed)
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            opened = await store.create(NewPartial(size=10))
            right, wrong = (f"md5:{hashlib.md5(data).hexdigest()}" for data in (b"0123", b"other"))
            await store.append(opened.id, 0, stream(b"0123"), checksum=right)
            assert durable[opened.id] == {"bytes", "record.json"}
            await refused(Code.DIGEST_MISMATCH, store.append(opened.id, 4, stream(b"45"), checksum=wrong))
            assert durable[opened.id] == {"bytes", "record.json"}
        (tmp_path / "partials" / opened.id / "verified").write_text("4")
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            assert (await store.get(opened.id)).offset == 4
        assert durable[opened.id] == {"bytes", "record.json"}


async def test_a_cancelled_append_keeps_the_order_of_bytes(tmp_path):
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
            for _ in range(end % 7):  # cancel at different points
                await asyncio.sleep(0)
            arriving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await arriving

            async def is_free():  # the last bytes are written after the cancelled call
                try:
                    await store.append(opened.id, (await store.get(opened.id)).offset, stream())
                except Error as error:
                    return not error.extra["busy"]
                return True

            await until(is_free)
            offset = (await store.get(opened.id)).offset
        await store.append(opened.id, offset, stream(DATA[offset:]))
        assert (await store.finish(opened.id)).digest == hashlib.sha256(DATA).hexdigest()
