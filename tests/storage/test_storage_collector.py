"""Test collections: referenced and new blobs stay, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from safelight.errors import Code, Error
from safelight.storage.bucket import BucketStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.maintenance import collector as module
from safelight.storage.maintenance.collector import Collector
from safelight.wire import Collected, Reference
from storage.content import chunks, digest_of, files, made, read

DAY = 86400.0
PREFIXES = ("blobs", "fresh", "names")


def pages(*found: Reference):
    async def references():
        for page in found:
            yield page

    return references


def reference(digests=(), names=()) -> Reference:
    return Reference(digests=list(digests), names=list(names))


async def put_all(store, count: int) -> list[str]:
    digests = [(await store.put(chunks(made(100, seed)))).digest for seed in range(count)]
    await past(store)
    return digests


async def past(store) -> None:
    """Wait until everything in a store counts as stored in the past.

    A bucket stores whole seconds. An object whose request took longer counts as stored at the end of its second.
    """
    if isinstance(store, BucketStore):
        found = [await store.bucket.find(key) for prefix in PREFIXES async for key, _ in store.bucket.listing(prefix)]
        newest = max(one.stored for one in found if one is not None)
        await asyncio.sleep(newest - time.time() + 0.01)


async def there(store, digest: str) -> bool:
    try:
        return digest_of(await read(store, digest)) == digest
    except Error:
        return False


@pytest.mark.parametrize("at_once", [1, 3, 1000])
async def test_only_unreferenced_blobs_are_removed(store, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(module, "_CANDIDATES", at_once)
    digests = await put_all(store, 10)
    named = [(await store.put(chunks(data))).digest for data in (b"named and wanted", b"named once")]
    for name, digest in zip(("wanted", "unwanted"), named, strict=True):
        await store.name(name, digest)
    await past(store)
    found = pages(reference(digests[:2]), reference(digests[2:4], ["wanted", "unknown"]), reference())
    collected = await Collector(store, found, grace=0, known_db=tmp_path / "db").collect()
    assert collected == Collected(examined=14, removed=8, freed=collected.freed)
    assert [await there(store, digest) for digest in digests] == [True] * 4 + [False] * 6
    assert await there(store, named[0])
    assert (await store.named("wanted")).digest == named[0]
    assert not await there(store, named[1])


async def test_what_others_left_among_the_blobs_stops_no_collection(store, tmp_path):
    digest = (await store.put(chunks(b"unwanted"))).digest
    left = f"blobs/{digest[:2]}/.nfs00000000000000010000000a"
    if isinstance(store, BucketStore):
        await store.bucket.write(left, b"unwanted")
    else:
        (tmp_path / "store" / left).write_bytes(b"unwanted")
    await past(store)
    collected = await Collector(store, pages(reference()), grace=0, known_db=tmp_path / "db").collect()
    assert (collected.examined, collected.removed) == (1, 1)
    assert not await there(store, digest)


async def test_a_named_blob_is_kept_without_a_reference_by_digest(store, tmp_path):
    blob = await store.put(chunks(b"picture"))
    await store.name("old", blob.digest)
    await store.name("kept", blob.digest)
    await past(store)
    await Collector(store, pages(reference(names=["kept"])), grace=0, known_db=tmp_path / "db").collect()
    assert await there(store, blob.digest)
    with pytest.raises(Error):
        await store.named("old")


async def test_a_blob_is_kept_by_a_name_that_is_a_little_newer(tmp_path, monkeypatch):
    """A collection may treat times in between as old; in a bucket, a name is written some requests after its blob."""
    async with DirectoryStore.at(tmp_path / "store") as store:
        named, other = [(await store.put(chunks(data))).digest for data in (b"named", b"not named")]
        await store.name("kept", named)
        now = time.time()
        for directory, age in (("blobs", DAY + 1000), ("names", DAY)):
            for path in files(tmp_path / "store", directory):
                os.utime(path, (now - age, now - age))
        collector = Collector(store, pages(reference(names=["kept"])), grace=DAY, known_db=tmp_path / "db")

        async def collected_at(moment: float) -> Collected:
            monkeypatch.setattr(collector._ages, "before", lambda _name, keep: moment - keep)
            return await collector.collect()

        assert (await collected_at(now - 500)).removed == 0
        assert (await collected_at(now + DAY)).removed == 1
        assert await there(store, named)
        assert not await there(store, other)


async def test_a_name_in_a_directory_is_never_newer_than_its_blob(tmp_path):
    async with DirectoryStore.at(tmp_path / "store") as store:
        await store.name("kept", (await store.put(chunks(b"named"))).digest)
    (blob,), (name,) = (files(tmp_path / "store", directory) for directory in ("blobs", "names"))
    assert blob.stat().st_mtime_ns >= name.stat().st_mtime_ns


async def test_nothing_is_removed_within_the_grace_period(store, tmp_path):
    digests = await put_all(store, 3)
    assert await Collector(store, pages(), grace=DAY, known_db=tmp_path / "db").collect() == Collected()
    assert all([await there(store, digest) for digest in digests])


async def test_nothing_is_removed_if_the_references_cannot_all_be_read(store, tmp_path):
    digests = await put_all(store, 5)

    async def broken():
        yield reference(digests[:1])
        raise Error(Code.UNAVAILABLE, "db is away")

    collector = Collector(store, broken, grace=0, known_db=tmp_path / "db")
    with pytest.raises(Error, match="db is away"):
        await collector.collect()
    assert all([await there(store, digest) for digest in digests])


async def test_a_blob_that_is_stored_again_during_a_collection_is_kept(store, tmp_path):
    digests = await put_all(store, 5)

    async def references():
        yield reference()
        assert not (await store.put(chunks(made(100, 3)))).new

    await Collector(store, references, grace=0, known_db=tmp_path / "db").collect()
    assert [await there(store, digest) for digest in digests] == [False, False, False, True, False]


@pytest.mark.slow
async def test_puts_racing_with_removals_are_never_lost(store, tmp_path):
    digests = await put_all(store, 150)
    putting: list[asyncio.Task] = []

    async def references():
        yield reference()
        putting.extend(asyncio.create_task(store.put(chunks(made(100, seed)))) for seed in range(150))
        await asyncio.sleep(0)

    await Collector(store, references, grace=0, known_db=tmp_path / "db").collect()
    stored = await asyncio.gather(*putting)
    assert [one.digest for one in stored] == digests
    assert all([await there(store, digest) for digest in digests])


async def test_collections_take_turns_and_the_second_finds_nothing(store, tmp_path):
    await put_all(store, 5)
    collector = Collector(store, pages(), grace=0, known_db=tmp_path / "db")
    results = await asyncio.gather(collector.collect(), collector.collect())
    assert [result.removed for result in results] == [5, 0]


async def test_collections_run_periodically_and_survive_a_failure(store, tmp_path):
    digests = await put_all(store, 1)
    attempts = 0

    async def references():
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise Error(Code.UNAVAILABLE, "db is away")
        yield reference()

    done = asyncio.Event()
    task = asyncio.create_task(
        Collector(store, references, grace=0, known_db=tmp_path / "db").run(0.01, lambda _collected: done.set())
    )
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    assert attempts >= 2
    assert not await there(store, digests[0])


async def test_a_new_database_is_not_trusted(store, tmp_path):
    digests = await put_all(store, 3)
    before = reference(digests[:2]).evolve(db="one")
    await Collector(store, pages(before), grace=0, known_db=tmp_path / "db").collect()
    anew = Collector(store, pages(reference().evolve(db="another")), grace=0, known_db=tmp_path / "db")
    with pytest.raises(Error) as refused:
        await anew.collect()
    assert refused.value.code is Code.CONFLICT
    assert "remove" in refused.value.detail
    assert [await there(store, digest) for digest in digests] == [True, True, False]
    (tmp_path / "db").unlink()
    assert (await anew.collect()).removed == 2
