"""Test the limit of stored bytes of a tenant, for resumable uploads and for whole ones, of known and unknown size."""

import asyncio
import errno
import os
import threading
from contextlib import AsyncExitStack

import pytest

from access.conftest import ELSEWHERE, Plane
from access.tenants import Api, keyed_tenant
from safelight.client import base
from safelight.errors import Code, Error
from safelight.storage.bucket import BucketStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.partial.bucket import PartialBucket
from safelight.storage.partial.directory import PartialDirectory
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from support.bodies import stream
from support.photos import photo
from support.programs.until import until
from support.tasks import refused

ACME = {"tenant": "acme"}


async def open_within(store, room):
    """Open uploads of one tenant until its limit is reached; check that uploads of others do not count."""
    first = await store.create(NewPartial(size=60, room=room, metadata=ACME))
    with pytest.raises(Error) as refused:
        await store.create(NewPartial(size=50, room=room, metadata=ACME))
    assert refused.value.code is Code.TOO_MANY_REQUESTS
    assert refused.value.extra["limit"] == room - 60
    await store.create(NewPartial(size=40, room=room, metadata=ACME))
    await store.create(NewPartial(size=100, room=room, metadata={"tenant": "other"}))
    await store.create(NewPartial(size=1000, metadata=ACME))  # for a tenant without a limit
    return first


async def test_open_uploads_count_with_the_bytes_that_they_will_have(tmp_path):
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            first = await open_within(store, 100)
        async with PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store:
            with pytest.raises(Error):  # also after a restart
                await store.create(NewPartial(size=1, room=1100, metadata=ACME))
            await store.delete(first.id)
            await store.create(NewPartial(size=60, room=1100, metadata=ACME))


@pytest.mark.parametrize("repeated", [False, True])
async def test_an_upload_that_is_opened_although_its_client_has_left_counts(tmp_path, monkeypatch, repeated):
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        create, begun, may = store._files.create, threading.Event(), threading.Event()

        def slowly(name, new):
            begun.set()
            assert may.wait(30)
            return create(name, new)

        monkeypatch.setattr(store._files, "create", slowly)
        new = NewPartial(id="ab" * 16, size=60, room=100, metadata=ACME)
        opening = asyncio.create_task(store.create(new))
        assert await asyncio.to_thread(begun.wait, 30)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        if repeated:
            again = asyncio.create_task(store.create(new))
            await asyncio.sleep(0)
            may.set()
            assert (await again).id == new.id
        else:
            may.set()
            await until((tmp_path / "partials" / new.id / "record.json").exists)
        second = NewPartial(size=50, room=100, metadata=ACME)
        await refused(Code.TOO_MANY_REQUESTS, store.create(second))
        await store.delete(new.id)
        await store.create(second)


async def test_an_upload_that_cannot_be_opened_does_not_count(tmp_path, monkeypatch):
    async with (
        DirectoryStore.at(tmp_path / "blobs") as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        new = NewPartial(size=60, room=100, metadata=ACME)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            await refused(Code.STORAGE_FULL, store.create(new))
        await store.create(new)


def full(_file):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
async def test_in_a_bucket_uploads_that_are_opened_during_a_search_for_others_count(bucket_url, monkeypatch):
    """The list is older than they are: the first is being opened when it is requested, the second is opened then."""
    async with (
        BucketStore.at(bucket_url) as blobs,
        PartialBucket.at(blobs.bucket, blobs, PartialLimits()) as store,
    ):
        await store.create(NewPartial(size=1))  # counts those of other instances, which happens only now and then
        create, listing = store._states.create, store._bucket.directories
        begun, may, opening = asyncio.Event(), asyncio.Event(), []

        async def slowly(state):
            begun.set()
            await may.wait()
            return await create(state)

        async def listed(prefix):
            found = await listing(prefix)
            opening.append(asyncio.create_task(store.create(NewPartial(size=40, room=100, metadata=ACME))))
            may.set()
            await asyncio.gather(*opening)
            return found

        monkeypatch.setattr(store._states, "create", slowly)
        monkeypatch.setattr(store._bucket, "directories", listed)
        opening.append(asyncio.create_task(store.create(NewPartial(size=50, room=100, metadata=ACME))))
        await begun.wait()
        await store.expire()
        monkeypatch.undo()
        error = await refused(Code.TOO_MANY_REQUESTS, store.create(NewPartial(size=20, room=100, metadata=ACME)))
        assert error.extra["limit"] == 10


@pytest.mark.slow
async def test_in_a_bucket_uploads_that_other_instances_ended_no_longer_count(bucket_url):
    async with AsyncExitStack() as stack:
        blobs = await stack.enter_async_context(BucketStore.at(bucket_url))
        one, other = [
            await stack.enter_async_context(PartialBucket.at(blobs.bucket, blobs, PartialLimits())) for _ in range(2)
        ]
        first = await open_within(one, 100)
        await one.append(first.id, 0, stream(b"x" * 60))
        await other.close(first.id, "task")
        second = await one.create(NewPartial(size=7, metadata=ACME))
        await other.delete(second.id)
        with pytest.raises(Error):
            await one.create(NewPartial(size=1, room=1041, metadata=ACME))
        await one.expire()
        await one.create(NewPartial(size=1, room=1041, metadata=ACME))


@pytest.mark.slow
async def test_a_tenant_cannot_upload_more_than_its_limit(tmp_path):
    """Uploads over the limit never reach storage, neither resumable ones nor whole ones without a known size."""
    png, kept = photo(1), photo(2)
    async with AsyncExitStack() as stack:
        plane = Plane(stack, tmp_path)
        await plane.start_all(trusted_proxies=ELSEWHERE)
        http = await stack.enter_async_context(base.session())
        root = Api(http, plane.url("master"), plane.key)
        acme = await keyed_tenant(root, "acme", bytes=len(kept) + len(png) + 100)

        async def begin(size):
            sent = {**acme.headers, "Tus-Resumable": "1.0.0", "Upload-Length": str(size)}
            async with http.post(f"{acme.url}/uploads", headers=sent) as answer:
                return answer.status, answer.headers.get("Location")

        async with acme.client() as client:
            await client.upload(kept)
        sizes = (len(png), 200)
        async with asyncio.timeout(30):
            while (opened := await begin(sum(sizes)))[0] != 429:  # the count is updated with a delay
                await acme.call("DELETE", opened[1], headers={"Tus-Resumable": "1.0.0"}, status=204)
        stored = len(list((tmp_path / "storage").rglob("blobs/*/*")))

        async def chunks():
            yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + png
            for _ in range(100):
                yield bytes(1 << 16)
            yield b"\r\n--b--\r\n"

        sent = {**acme.headers, "Content-Type": "multipart/form-data; boundary=b"}
        async with http.post(f"{acme.url}/task", data=chunks(), headers=sent) as answer:
            assert answer.status == 429, await answer.text()
        assert len(list((tmp_path / "storage").rglob("blobs/*/*"))) == stored
        status, _ = await begin(len(png))
        assert status == 201
        status, _ = await begin(200)
        assert status == 429
