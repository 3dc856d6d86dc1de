"""Test calls to the store of partial uploads that are cancelled, because their client has left, and yet take effect."""

import asyncio
import shutil
import threading
import time

import pytest

from safelight.errors import Code
from safelight.storage.bucket import BucketStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.partial.bucket import PartialBucket
from safelight.storage.partial.directory import PartialDirectory
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from support.bodies import stream
from support.programs.until import until
from support.tasks import refused

NEW = NewPartial(size=3, room=3, metadata={"tenant": "acme"})


@pytest.fixture
async def blobs(tmp_path):
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        yield blobs


@pytest.fixture
async def store(tmp_path, blobs):
    async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
        yield store


async def whole(store):
    """Open an upload and append all of it; there is no room for another one meanwhile."""
    opened = await store.create(NEW)
    await store.append(opened.id, 0, stream(b"abc"))
    return opened.id


async def cancelled(call, begun):
    """Make a call, and cancel it once it has begun."""
    calling = asyncio.create_task(call)
    assert await asyncio.to_thread(begun.wait, 30)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.fixture
def slow(monkeypatch):
    """Return a function that makes a method of a thread set an event and wait for another, before or after its work."""

    def make(owner, name, *, after=False):
        method, begun, may = getattr(owner, name), threading.Event(), threading.Event()

        def slowly(*arguments, **named):
            done = method(*arguments, **named) if after else None
            begun.set()
            assert may.wait(30)
            return done if after else method(*arguments, **named)

        monkeypatch.setattr(owner, name, slowly)
        return begun, may

    return make


@pytest.mark.parametrize("name", ["delete", "close"])
async def test_an_upload_that_was_ended_although_its_client_has_left_takes_no_room(store, blobs, slow, name):
    upload = await whole(store)
    blob = await store.finish(upload)
    begun, may = slow(store._files, name)
    call = store.delete(upload) if name == "delete" else store.close(upload, "task")
    await cancelled(call, begun)
    may.set()
    await until(lambda: not blobs._held)
    assert (await blobs.remove([blob.digest], before=time.time() + 3600.0)) == [3]
    await store.create(NEW)


async def test_an_upload_that_is_being_finished_stays_taken_although_its_client_has_left(store, blobs, slow):
    upload = await whole(store)
    begun, may = slow(blobs, "_adopt")
    await cancelled(store.finish(upload), begun)
    for call in (store.finish(upload), store.close(upload, "task")):
        assert (await refused(Code.CONFLICT, call)).extra["busy"] is True
    may.set()
    await until(lambda: not store._busy)
    assert (await store.finish(upload)).size == 3


async def test_an_upload_that_is_deleted_while_it_is_finished_holds_no_blob(store, blobs, slow):
    upload = await whole(store)
    begun, may = slow(store._files, "finish", after=True)
    finishing = asyncio.create_task(store.finish(upload))
    assert await asyncio.to_thread(begun.wait, 30)
    await store.delete(upload)
    may.set()
    await refused(Code.NOT_FOUND, finishing)
    assert not blobs._held
    await store.create(NEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delete", "replace"])
async def test_in_a_bucket_too_an_upload_is_ended_although_its_client_has_left(bucket_url, monkeypatch, name):
    async with (
        BucketStore.at(bucket_url) as blobs,
        PartialBucket.at(blobs.bucket, blobs, PartialLimits()) as store,
    ):
        upload = await whole(store)
        method, begun, may = getattr(store._states, name), threading.Event(), asyncio.Event()

        async def slowly(*arguments):
            done = await method(*arguments)
            begun.set()
            await may.wait()
            return done

        monkeypatch.setattr(store._states, name, slowly)
        await cancelled(store.delete(upload) if name == "delete" else store.close(upload, "task"), begun)
        may.set()
        await until(lambda: upload not in store._shares)
        await store.create(NEW)

        async def is_empty():
            return {key async for key, _ in store._bucket.listing(f"partials/{upload}")} <= {f"partials/{upload}/state"}

        await until(is_empty)


async def test_an_upload_whose_files_are_gone_takes_no_room_once_it_is_deleted(store, tmp_path):
    upload = await whole(store)
    shutil.rmtree(tmp_path / "partials" / upload)
    await refused(Code.NOT_FOUND, store.delete(upload))
    await store.create(NEW)
