"""Test the bucket backend only: several instances at once, multipart uploads, credentials."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import obstore
import pytest
from obstore.store import ObjectStore, from_url

from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.steady import Ages, ManualClock
from safelight.storage.bucket import Bucket, BucketStore, removal, sizes
from safelight.storage.bucket.multiparts import abort_unfinished
from safelight.storage.bucket.turn import turn
from safelight.storage.partial import bucket as partial_bucket
from safelight.storage.partial import state as partial_state
from safelight.storage.partial.bucket import PartialBucket
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from storage.content import chunks, digest_of, made, read
from support.bodies import stream
from support.programs.processes import service
from support.programs.until import until
from support.servers import BUCKETS, PROVIDERS
from support.servers.google import SLOW

MIB = 1 << 20


@pytest.fixture(params=PROVIDERS)
async def stores(request):
    """Yield two instances of one store."""
    url = request.getfixturevalue(BUCKETS[request.param])
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(BucketStore.at(url)) for _ in range(2)]


@pytest.fixture
async def partials(stores):
    """Yield two instances of one store of partial uploads."""
    async with AsyncExitStack() as stack:
        opened = [PartialBucket.at(store.bucket, store, PartialLimits()) for store in stores]
        yield [await stack.enter_async_context(one) for one in opened]


@pytest.mark.slow
async def test_a_bucket_whose_listing_takes_longer_than_callers_wait_tells_its_size(bucket_url, monkeypatch):
    listing, began, gate = Bucket.listing, [], asyncio.Event()

    async def slow(bucket, prefix):
        if prefix == "blobs":
            began.append(prefix)
            await gate.wait()
        async for found in listing(bucket, prefix):
            yield found

    monkeypatch.setattr(Bucket, "listing", slow)
    for name, value in {"_PATIENCE": 0.01, "_VALID": 0.0, "_SHARE": 0}.items():
        monkeypatch.setattr(sizes, name, value)
    async with BucketStore.at(bucket_url) as store:
        await store.put(chunks(b"one"))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.info(), 0.01)
        gate.set()
        assert (await store.info()).blobs == 1
        await store.put(chunks(b"other"))
        gate.clear()
        async with asyncio.timeout(30):
            assert (await store.info()).blobs == 2
    assert len(began) == 2


def apart(bucket: Bucket) -> ObjectStore:
    """Return the bucket as the library knows it, to look into it without our code."""
    return from_url(bucket.url, client_options={"allow_http": True})


async def keys(bucket: Bucket, prefix: str) -> list[str]:
    return [key async for key, _ in bucket.listing(prefix)]


async def unfinished(bucket: Bucket) -> int:
    """Return how many multipart uploads are unfinished, and abort them. This works only for S3."""
    return await abort_unfinished(bucket.url, time.time() + 60)


@pytest.mark.slow
async def test_a_large_blob_goes_through_parts_and_leaves_nothing_else(stores):
    one, other = stores
    data = made(21 * MIB + 7)
    stored = await one.put(chunks(data, 300_000))
    assert (stored.digest, stored.size, stored.new) == (digest_of(data), len(data), True)
    assert not (await other.put(chunks(data, 300_000))).new
    assert await read(other, stored.digest, verify=True) == data
    assert await read(other, stored.digest, 9 * MIB, 9 * MIB + 5) == data[9 * MIB : 9 * MIB + 5]
    assert await keys(one.bucket, "incoming") == []
    raw = await obstore.get_async(apart(one.bucket), f"blobs/{stored.digest[:2]}/{stored.digest}")
    assert hashlib.sha256(await raw.bytes_async()).hexdigest() == stored.digest
    assert raw.attributes["Content-Disposition"] == "attachment"
    assert raw.attributes["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_large_upload_that_breaks_off_leaves_no_parts(stores, cancelled):
    waiting = asyncio.Event()

    async def broken():
        async for chunk in chunks(made(20 * MIB), MIB):
            yield chunk
        waiting.set()
        if cancelled:
            await asyncio.Event().wait()
        raise ConnectionResetError("gone")

    task = asyncio.create_task(stores[0].put(broken()))
    async with asyncio.timeout(30):
        await waiting.wait()
    task.cancel() if cancelled else None
    with pytest.raises(asyncio.CancelledError if cancelled else ConnectionResetError):
        await task
    assert await unfinished(stores[0].bucket) == 0
    assert (await stores[1].info()).blobs == 0
    assert await keys(stores[0].bucket, "incoming") == []


async def test_left_overs_of_a_crash_are_removed_later(stores):
    bucket = stores[0].bucket
    counted = bucket.url.startswith("s3:")  # others remove unfinished uploads themselves or by a rule
    begun = asyncio.Event()

    async def endless():
        for _ in range(20):
            yield bytes(MIB)
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(bucket.upload("incoming/crashed", endless()))
    async with asyncio.timeout(30):
        await begun.wait()
    task.cancel()  # bypasses the spool's clean-up, like a crash
    await asyncio.gather(task, return_exceptions=True)
    await bucket.write("incoming/whole", b"left")
    now = [time.time() + 60]
    store = BucketStore(bucket, Ages(clock=ManualClock(lambda: now[0])))
    removed = []
    for _ in range(4):  # both must be a day old at two checks that are a day apart
        removed.append(await store.tidy())
        now[0] += 86400
    assert removed == [0, 0, 2 if counted else 1, 0]
    assert await keys(bucket, "incoming") == []
    assert await unfinished(bucket) == 0


@pytest.mark.slow
async def test_two_instances_store_and_remove_the_same_blobs(stores):
    """Acknowledged blobs stay while another instance removes old ones."""
    one, other = stores
    blobs = [made(200, seed) for seed in range(40)]
    for data in blobs:
        await one.put(chunks(data))
    before = time.time() + 0.01
    await asyncio.sleep(0.02)
    removing = [one.remove([digest_of(data)], before=before) for data in blobs]
    storing = [other.put(chunks(data)) for data in blobs for _ in range(2)]
    await asyncio.gather(*removing, *storing)
    for data in blobs:
        assert await read(one, digest_of(data)) == data


async def test_a_mark_that_a_crash_left_counts_for_a_while(stores, monkeypatch):
    one, other = stores
    data = made(100)
    digest = (await one.put(chunks(data))).digest
    await one.bucket.create(f"marks/blobs/{digest[:2]}/{digest}", b"dead")
    assert await one.remove([digest], before=time.time() + 60) == [None]
    monkeypatch.setattr(removal, "_WAIT", 0.1)
    with pytest.raises(Error) as caught:
        await other.put(chunks(data))
    assert (caught.value.code, caught.value.extra["retry_after"]) == (Code.UNAVAILABLE, 5)
    monkeypatch.setattr(removal, "_STALE", 0.1)
    assert not (await other.put(chunks(data))).new
    assert await keys(one.bucket, "marks") == []


async def test_a_damaged_blob_is_repaired_by_storing_it_again(stores):
    data = made(1000)
    digest = (await stores[0].put(chunks(data))).digest
    await stores[0].bucket.write(f"blobs/{digest[:2]}/{digest}", made(1000, seed=1))
    with pytest.raises(Error) as caught:
        await read(stores[0], digest, verify=True)
    assert caught.value.code is Code.DAMAGED_BLOB
    with pytest.raises(Error) as caught:  # another instance notices while it sends
        await read(stores[1], digest)
    assert caught.value.code is Code.DAMAGED_BLOB
    await stores[0].put(chunks(data))
    assert await read(stores[1], digest, verify=True) == data


async def test_another_instance_continues_an_upload(partials):
    one, other = partials
    data = made(9 * MIB)
    opened = await one.create(NewPartial(size=len(data)))
    for number, end in enumerate((100, 5 * MIB, 5 * MIB + 10, len(data))):
        store, offset = partials[number % 2], (await partials[number % 2].get(opened.id)).offset
        assert (await store.append(opened.id, offset, stream(data[offset:end]))).offset == end
    assert (await other.finish(opened.id)).digest == digest_of(data)
    assert (await one.close(opened.id, "task")).outcome == "task"
    assert (await other.get(opened.id)).outcome == "task"


async def test_an_upload_is_kept_as_long_as_each_answer_says(partials):
    one, other = partials
    opened = await one.create(NewPartial(size=2))
    assert opened.expires <= (await other.get(opened.id)).expires
    longer = await one.append(opened.id, 0, stream(b"0"))
    assert opened.expires < longer.expires <= (await other.get(opened.id)).expires


async def test_of_two_instances_that_append_at_once_one_succeeds(partials):
    for _ in range(5):
        opened = await partials[0].create(NewPartial(size=200))
        appends = [store.append(opened.id, 0, stream(bytes([n]) * 100)) for n, store in enumerate(partials)]
        results = await asyncio.gather(*appends, return_exceptions=True)
        errors = [result for result in results if isinstance(result, Error)]
        assert [error.code for error in errors] == [Code.CONFLICT]
        assert (await partials[0].get(opened.id)).offset == 100


@pytest.mark.parametrize("ahead", [0.0, 3600.0])
async def test_an_upload_is_taken_over_from_an_instance_that_hangs(partials, monkeypatch, ahead):
    """Later bytes of the first instance are not mixed in; the instance gets an error that the upload was taken over."""
    one, other = partials
    monkeypatch.setattr(partial_state, "HOLD", 0.2)
    monkeypatch.setattr(partial_bucket, "hold_until", lambda: partial_state.hold_until() + ahead)
    opened = await one.create(NewPartial(size=8))
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slowly():
        begun.set()
        async for chunk in stream(b"0123", b"xxxx", gate=gate):
            yield chunk

    hanging = asyncio.create_task(one.append(opened.id, 0, slowly()))
    async with asyncio.timeout(30):
        await begun.wait()
        while True:
            try:
                await other.append(opened.id, 0, stream(b"01234567"))
                break
            except Error as error:
                assert error.extra["busy"]
                await asyncio.sleep(0.05)
    gate.set()
    with pytest.raises(Error) as caught:
        await hanging
    assert caught.value.code is Code.CONFLICT
    assert (await one.finish(opened.id)).digest == digest_of(b"01234567")


async def test_an_append_that_is_cancelled_before_its_bytes_holds_the_upload_no_longer(partials, monkeypatch):
    one, other = partials
    opened = await one.create(NewPartial(size=4))
    replace, written, answered = Bucket.replace, asyncio.Event(), asyncio.Event()

    async def slow(bucket, key, data, tag):
        replaced = await replace(bucket, key, data, tag)
        written.set()
        await answered.wait()
        return replaced

    monkeypatch.setattr(Bucket, "replace", slow)
    arriving = asyncio.create_task(one.append(opened.id, 0, stream(b"0123")))
    await written.wait()
    arriving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await arriving
    answered.set()

    async def is_free():
        try:
            return (await other.append(opened.id, 0, stream(b"0123"))).offset == 4
        except Error as error:
            return not error.extra["busy"]

    await until(is_free, timeout=partial_state.HOLD / 2)


async def test_expired_uploads_and_orphaned_parts_are_removed(stores):
    bucket = stores[0].bucket
    async with PartialBucket.at(bucket, stores[0], PartialLimits(keep=0.2)) as store:
        opened = await store.create(NewPartial(size=2))
        await store.append(opened.id, 0, stream(b"0"))

        async def are_gone():
            return await keys(bucket, "partials") == []

        await until(are_gone, timeout=30.0)
        with pytest.raises(Error):
            await store.get(opened.id)


async def test_one_instance_collects_at_a_time(stores):
    async with turn(stores[0].bucket):
        with pytest.raises(Error) as caught:
            async with turn(stores[1].bucket):
                pass
        assert caught.value.extra["busy"]
    async with turn(stores[1].bucket):
        pass


@pytest.mark.slow
async def test_a_write_that_is_limited_to_one_a_second_is_repeated_later(google_url):
    bucket = Bucket(google_url)
    tag = await bucket.create(SLOW, b"0")
    for number in (b"1", b"2"):
        tag = await bucket.replace(SLOW, number, tag)
        assert tag is not None
    await bucket.write(SLOW, b"3")
    assert await bucket.replace(SLOW, b"4", tag) is None
    content = await bucket.read(SLOW)
    assert await content.read() == b"3"


@pytest.mark.slow
async def test_a_bucket_that_cannot_be_used_is_named(seaweed, tmp_path):
    environment = {**seaweed.environment(), "AWS_SECRET_ACCESS_KEY": "wrong"}
    for url, sentence in (("s3://photos", "SignatureDoesNotMatch"), ("s3://", "s3://BUCKET/PREFIX")):
        async with service("storage", "--store", url, "--data", str(tmp_path), env=environment) as process:
            assert await process.ended() != 0
            assert sentence in str(process.lines)


@pytest.mark.slow
async def test_a_process_takes_constant_memory_and_keeps_no_blobs_on_this_machine(seaweed, bucket_url, tmp_path):
    def resident(pid: int) -> int:
        fields = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in fields if line.startswith("VmHWM"))) * 1024

    async def zeros():
        for _ in range(200):
            yield bytes(MIB)

    argv = ("--store", bucket_url, "--data", str(tmp_path / "data"))
    async with service("storage", *argv, env=seaweed.environment()) as process:
        async with StorageClient.connect(await process.address()) as storage:
            await storage.put(made(1000))
            before = resident(process.process.pid)
            blob = await storage.put(zeros())
            async with storage.open(blob.digest, verify=True) as answer:
                assert sum([len(chunk) async for chunk in answer.chunks()]) == 200 * MIB
        assert resident(process.process.pid) - before < 96 * MIB
    assert {path.name for path in (tmp_path / "data").iterdir()} <= {"ages.json"}


async def test_a_directory_does_not_import_the_driver(tmp_path):
    code = f"""
import asyncio, sys
from safelight import serve
from safelight.storage.__main__ import Config, build

async def main():
    async with serve.running("storage", Config(port=0, data={str(tmp_path)!r}), build):
        assert "obstore" not in sys.modules

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


async def test_two_instances_give_a_bucket_one_id(stores):
    one, other = (each.bucket.text("identity") for each in stores)
    assert one.read() == ""
    await asyncio.gather(asyncio.to_thread(one.create, "1\n"), asyncio.to_thread(other.create, "2\n"))
    assert one.read() == other.read() in ("1", "2")
