"""Test what partial uploads leave in a bucket: only the parts that count, and nothing after the end."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import pytest

from safelight.errors import Code, Error
from safelight.steady import Ages
from safelight.storage.bucket import BucketStore
from safelight.storage.partial.bucket import PartialBucket
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from support.bodies import stream
from support.programs.until import until
from support.tasks import refused

pytestmark = pytest.mark.slow

WRONG = f"sha1:{0:040}"


@pytest.fixture
async def stores(bucket_url):
    """Yield two instances that share a bucket."""
    async with AsyncExitStack() as stack:
        blobs = await stack.enter_async_context(BucketStore.at(bucket_url))
        instances = [PartialBucket.at(blobs.bucket, blobs, PartialLimits(count=1)) for _ in range(2)]
        yield [await stack.enter_async_context(instance) for instance in instances]


async def sizes(store, id):
    """Return the sizes of the parts of an upload that are in the bucket."""
    listing = store._bucket.listing(f"partials/{id}")
    return [found.size async for key, found in listing if not key.endswith("/state")]


async def test_a_short_part_that_was_rewritten_is_deleted(stores):
    store, _ = stores
    opened = await store.create(NewPartial(size=30))
    for offset in range(0, 30, 10):
        await store.append(opened.id, offset, stream(b"0123456789"))
        assert await sizes(store, opened.id) == [offset + 10]
    await store.append(opened.id, 30, stream())
    assert await sizes(store, opened.id) == [30]
    assert (await store.finish(opened.id)).size == 30


async def test_bytes_with_a_wrong_checksum_are_deleted(stores):
    store, _ = stores
    chunks = [bytes(1 << 20)] * 5
    opened = await store.create(NewPartial(size=10 + (5 << 20)))
    await store.append(opened.id, 0, stream(b"0123456789"))
    await refused(Code.DIGEST_MISMATCH, store.append(opened.id, 10, stream(*chunks), checksum=WRONG))
    assert await sizes(store, opened.id) == [10]
    assert (await store.append(opened.id, 10, stream(*chunks))).offset == opened.size


async def test_bytes_of_an_append_that_was_replaced_are_deleted(stores):
    store, other = stores
    begin, rest = b"0123456789", bytes(5 << 20)
    opened = await store.create(NewPartial(size=len(begin + rest)))
    await store.append(opened.id, 0, stream(begin))
    gate = asyncio.Event()
    replaced = asyncio.create_task(
        store.append(opened.id, 10, stream(rest, b"", gate=gate), checksum=WRONG, holder="ab")
    )

    async def takes_over():
        try:
            return len(await sizes(store, opened.id)) == 2 and await other.append(
                opened.id, 10, stream(rest), holder="ab"
            )
        except Error as error:  # the first one has just renewed its hold
            assert error.extra["busy"]
            return False

    await until(takes_over)
    gate.set()
    await refused(Code.CONFLICT, replaced)
    assert sum(await sizes(store, opened.id)) == opened.size
    assert (await other.finish(opened.id)).size == opened.size


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_closed_upload_leaves_only_its_record(stores, moment):
    """A crash or an error has left a part, before the upload was closed or because its deletion failed."""
    store, other = stores
    opened = await store.create(NewPartial(size=1))
    await store.append(opened.id, 0, stream(b"x"))
    if moment == "before":
        await store._bucket.write(f"partials/{opened.id}/left", b"y")
    await store.close(opened.id, "task")
    if moment == "after":
        await store._bucket.write(f"partials/{opened.id}/left", b"y")
        await store.expire()
    assert await sizes(store, opened.id) == []
    await other.expire()
    assert (await other.get(opened.id)).outcome == "task"
    await other.create(NewPartial(size=1))  # the closed one takes no place


async def test_uploads_of_other_instances_count_while_they_are_open(stores):
    store, other = stores
    for end in (store.delete, partial(store.close, outcome="task")):
        opened = await store.create(NewPartial(size=0))
        await other.expire()
        await refused(Code.TOO_MANY_REQUESTS, other.create(NewPartial(size=1)))
        await end(opened.id)
        await other.expire()
        await other.delete((await other.create(NewPartial(size=1))).id)
        await store.expire()


async def test_an_instance_that_starts_counts_no_closed_uploads(stores, bucket_url):
    """It does so before its first search for expired uploads has ended, which takes long if there are many."""
    store, _ = stores
    for number in range(3):
        await store.close((await store.create(NewPartial(size=0))).id, f"task {number}")
    gate = asyncio.Event()
    async with BucketStore.at(bucket_url) as blobs:
        directories = blobs.bucket.directories

        async def listed(prefix):
            found = await directories(prefix)
            await gate.wait()
            return found

        started = PartialBucket(blobs.bucket, blobs, PartialLimits(count=1), Ages())
        started._bucket.directories = listed
        searching = asyncio.create_task(started.expire())
        opened = await asyncio.wait_for(started.create(NewPartial(size=1)), 30)
        await refused(Code.TOO_MANY_REQUESTS, started.create(NewPartial(size=1)))
        gate.set()
        await searching
        await refused(Code.TOO_MANY_REQUESTS, started.create(NewPartial(size=1)))
        await started.delete(opened.id)
        await started.create(NewPartial(size=1))
