"""Test the contract of a blob store with every backend."""

from __future__ import annotations

import asyncio
import time

import pytest

from safelight.errors import Code, Error
from safelight.wire import Blob
from storage.content import chunks, digest_of, made, read

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1, 65536, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])
async def test_bytes_are_read_back(store, size):
    data = made(size)
    stored = await store.put(chunks(data))
    assert (stored.digest, stored.size, stored.new) == (digest_of(data), size, True)
    assert await read(store, stored.digest, verify=True) == data
    async with store.open(stored.digest) as reading:
        assert reading.blob == Blob(digest=stored.digest, size=size)


@pytest.mark.parametrize(("start", "end"), [(0, 10), (5, 5), (MIB - 3, MIB + 3), (2 * MIB - 10, None), (0, 99 * MIB)])
async def test_a_part_of_a_blob(store, start, end):
    data = made(2 * MIB)
    stored = await store.put(chunks(data))
    assert await read(store, stored.digest, start, end) == data[start:end]


async def test_chunks_of_any_size(store):
    data = made(3 * MIB + 5)
    for size in (1000, 3 * MIB, 1_000_003):
        assert (await store.put(chunks(data, size))).digest == digest_of(data)


async def test_the_same_bytes_are_stored_once(store):
    data = made(100_000)
    assert (await store.put(chunks(data))).new
    assert not (await store.put(chunks(data))).new
    info = await store.info()
    assert (info.blobs, info.size) == (1, 100_000)


@pytest.mark.parametrize("size", [1000, 3 * MIB])
async def test_concurrent_puts_of_the_same_bytes(store, size):
    data = made(size)
    stored = await asyncio.gather(*(store.put(chunks(data)) for _ in range(20)))
    assert [one.new for one in stored].count(True) == 1
    assert (await store.info()).blobs == 1
    assert await read(store, digest_of(data), verify=True) == data


async def test_expected_digest(store):
    data = made(1000)
    assert (await store.put(chunks(data), expected=digest_of(data))).new
    with pytest.raises(Error) as caught:
        await store.put(chunks(b"other"), expected=digest_of(data))
    assert caught.value.code is Code.DIGEST_MISMATCH
    with pytest.raises(Error):
        async with store.open(digest_of(b"other")):
            pass


@pytest.mark.parametrize("size", [1001, 3 * MIB])
async def test_past_the_limit_nothing_is_stored(store, size):
    with pytest.raises(Error) as caught:
        await store.put(chunks(made(size)), limit=1000)
    assert caught.value.code is Code.TOO_LARGE
    assert (await store.info()).blobs == 0
    assert (await store.put(chunks(made(1000)), limit=1000)).size == 1000


@pytest.mark.parametrize("digest", ["0" * 64, "x", "../../../etc/passwd", "A" * 64, ""])
async def test_unknown_digests_are_not_found(store, digest):
    with pytest.raises(Error) as caught:
        await read(store, digest)
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("before", [0, 100, 2 * MIB])
async def test_a_body_that_breaks_off_leaves_nothing(store, before):
    async def broken():
        async for chunk in chunks(made(before)):
            yield chunk
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await store.put(broken())
    assert (await store.info()).blobs == 0


@pytest.mark.parametrize("sent", [100, 2 * MIB])
async def test_a_put_that_is_cancelled_leaves_nothing(store, sent):
    waiting = asyncio.Event()

    async def stalled():
        async for chunk in chunks(made(sent)):
            yield chunk
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put(stalled()))
    async with asyncio.timeout(60):
        await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.info()).blobs == 0


@pytest.mark.parametrize("name", ["7", "../../etc/passwd", "a/b\x00c", "имя", "x" * 200, ".", ""])
async def test_names(store, name):
    stored = await store.put(chunks(b"picture"))
    other = await store.put(chunks(b"another"))
    await store.name(name, stored.digest)
    await store.name(name, stored.digest)
    assert await store.named(name) == Blob(digest=stored.digest, size=7)
    with pytest.raises(Error) as caught:
        await store.name(name, other.digest)
    assert caught.value.code is Code.CONFLICT
    assert (await store.named(name)).digest == stored.digest


async def test_unknown_names_are_not_found(store):
    for attempt in (store.named("7"), store.name("7", "0" * 64)):
        with pytest.raises(Error) as caught:
            await attempt
        assert caught.value.code is Code.NOT_FOUND


async def test_aged_lists_names_first_and_only_old_blobs(store):
    digests = [(await store.put(chunks(made(10, seed)))).digest for seed in range(20)]
    await store.name("one", digests[0])
    assert [item async for item in store.aged(time.time() - 60)] == []
    items = [item async for item in store.aged(time.time() + 60)]
    assert items[0] == "name:one"
    assert sorted(items[1:]) == sorted(digests)


async def test_remove_keeps_blobs_that_were_stored_again(store):
    data = made(1000)
    stored = await store.put(chunks(data))
    between = time.time() + 0.001
    await _until(between)
    assert stored.digest in [item async for item in store.aged(between)]
    await store.put(chunks(data))
    assert await store.remove([stored.digest], before=between) == [None]
    assert await read(store, stored.digest) == data
    assert await store.remove([stored.digest], before=time.time() + 60) == [1000]
    assert await store.remove([stored.digest], before=time.time() + 60) == [None]
    assert (await store.info()).blobs == 0
    assert (await store.put(chunks(data))).new


async def test_naming_a_blob_renews_its_age_and_the_names(store):
    stored = await store.put(chunks(b"picture"))
    await store.name("one", stored.digest)
    between = time.time() + 0.001
    await _until(between)
    await store.name("one", stored.digest)
    assert [item async for item in store.aged(between)] == []
    assert await store.remove(["name:one"], before=between) == [None]


async def test_a_removed_name_is_free_again(store):
    first, second = await store.put(chunks(b"first")), await store.put(chunks(b"second"))
    await store.name("one", first.digest)
    assert await store.remove(["name:one"], before=time.time() + 60) != [None]
    await store.name("one", second.digest)
    assert (await store.named("one")).digest == second.digest


async def test_a_blob_that_is_being_read_can_be_removed(store):
    data = made(3 * MIB)
    stored = await store.put(chunks(data))
    async with store.open(stored.digest) as reading:
        assert await store.remove([stored.digest], before=time.time() + 60) == [len(data)]
        assert b"".join([chunk async for chunk in reading.chunks()]) == data


async def test_info_counts_blobs_and_bytes(store):
    assert (await store.info()).blobs == 0
    for seed in range(10):
        await store.put(chunks(made(1000 + seed, seed)))
    info = await store.info()
    assert (info.blobs, info.size) == (10, 10045)


async def _until(moment: float) -> None:
    """Wait until a time has passed, also by the coarse clock of files."""
    await asyncio.sleep(max(0.0, moment - time.time()) + 0.02)
