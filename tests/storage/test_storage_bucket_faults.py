"""Test that what an operator can have wrong with a bucket is named, with what to do."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from safelight import serve
from safelight.client.availability import reachability
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.storage.__main__ import Config, build
from safelight.storage.bucket import Bucket, BucketStore
from support.readiness import TIMEOUT, away_and_back, not_ready, ready_again
from support.servers.seaweedfs import seaweedfs

pytestmark = pytest.mark.slow


@asynccontextmanager
async def _refusing(monkeypatch: pytest.MonkeyPatch, status: int, said: str = "") -> AsyncIterator[None]:
    """Serve a bucket that refuses every request, as S3 does: with the reason in a body, so not in answers to HEAD."""
    app = web.Application()

    async def answer(_request: web.Request) -> web.Response:
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{said}</Code></Error>' if said else ""
        return web.Response(status=status, text=body, content_type="application/xml")

    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", str(server.make_url("")))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        yield


@pytest.mark.parametrize(
    ("changed", "url", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://photos/faults", "Check the credentials"),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, "s3://photos/faults", "Check the credentials"),
        ({}, "s3://absent/faults", "Create the bucket"),
    ],
)
async def test_a_bucket_that_cannot_be_used_says_what_to_do(seaweed, monkeypatch, changed, url, sentence):
    for name, value in {**seaweed.environment(), **changed}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Error, match=sentence):
        async for _ in Bucket(url).listing(""):
            pass


@pytest.mark.parametrize("prefix", ["../x", "a/../b", "a/%2e%2e/b", "./a", "x?y=1", "x#z", "a//b"])
def test_a_prefix_that_would_become_another_one_is_refused(prefix):
    with pytest.raises(Error) as refused:
        Bucket(f"s3://photos/{prefix}")
    assert refused.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize("endpoint", ["minio:9000", "127.0.0.1:9000", "minio", "http://", "s3://minio"])
def test_an_endpoint_that_is_not_a_url_is_refused(endpoint, monkeypatch):
    """The library would panic, or send requests elsewhere."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(Error, match="write a URL into AWS_ENDPOINT_URL") as refused:
        Bucket("s3://photos/x")
    assert refused.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize(("status", "code"), [(503, Code.UNAVAILABLE), (507, Code.STORAGE_FULL)])
async def test_only_a_bucket_that_is_full_is_said_to_be(status, code, monkeypatch):
    """The URL of an object, which is a part of the library's message, has the number 507 now and then."""
    async with _refusing(monkeypatch, status):
        with pytest.raises(Error) as failed:
            await Bucket("s3://photos/a507f").ask()
    assert failed.value.code is code


@pytest.mark.parametrize(
    ("status", "said", "advice"),
    [
        (503, "SlowDown", ""),
        (403, "RequestTimeTooSkewed", "Set the clock"),
        (400, "ExpiredToken", "new credentials"),
        (403, "AccessDenied", "Check the credentials"),
    ],
)
async def test_the_reason_of_a_refusal_is_told(status, said, advice, monkeypatch):
    """The codes are those of Amazon's reference, "Error responses"."""
    async with _refusing(monkeypatch, status, said):
        with pytest.raises(Error, match=rf"\({said}\).*{advice}") as failed:
            await Bucket("s3://photos/x").ask()
    assert failed.value.code is Code.UNAVAILABLE


async def test_nothing_is_said_about_objects_of_a_bucket_that_is_gone(monkeypatch):
    """Tasks would fail for good because their photos are taken for lost."""
    async with _refusing(monkeypatch, 404, "NoSuchBucket"):
        bucket = Bucket("s3://photos/x")
        for asking in (bucket.ask(), bucket.read("key"), bucket.create("key", b""), bucket.replace("key", b"", "tag")):
            with pytest.raises(Error, match="Create the bucket") as failed:
                await asking
            assert failed.value.code is Code.UNAVAILABLE
        with pytest.raises(Error, match="Create the bucket"):
            await asyncio.to_thread(bucket.text("key").read)


async def test_no_blob_is_missing_in_a_bucket_without_the_id_of_its_store(seaweed, monkeypatch):
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    url, digest = seaweed.url(), hashlib.sha256(b"a photo").hexdigest()
    await asyncio.to_thread(Bucket(url).text("identity").create, "ab" * 16)

    async def missing(store: BucketStore) -> list[Code]:
        codes = []
        for asking in (store.named("photo"), store.name("photo", digest), store.open(digest).__aenter__()):
            with pytest.raises(Error) as failed:
                await asking
            codes.append(failed.value.code)
        return codes

    async with BucketStore.at(url) as store:
        assert await missing(store) == [Code.NOT_FOUND] * 3
        await store.bucket.delete("identity")  # as somebody does who empties the bucket
        assert await missing(store) == [Code.UNAVAILABLE] * 3


async def test_storage_is_not_ready_while_the_bucket_is_away(tmp_path, monkeypatch):
    with seaweedfs(tmp_path / "server") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        config = Config(port=0, data=str(tmp_path / "data"), store=server.url())
        async with serve.running("storage", config, build) as storage:
            await away_and_back(storage.url, "bucket", stop=server.stop, start=server.start)


async def test_storage_is_not_ready_while_the_bucket_refuses_its_credentials(seaweed, tmp_path, monkeypatch):
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    config = Config(port=0, data=str(tmp_path), store=seaweed.url())
    used, ask = [], Bucket.ask
    monkeypatch.setattr(Bucket, "ask", lambda bucket: ask(used[0] if used else bucket))
    async with serve.running("storage", config, build) as storage, aiohttp.ClientSession() as http:
        await ready_again(http, storage.url)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired")
        used.append(Bucket(config.store))
        assert "Check the credentials" in (await not_ready(http, storage.url))["detail"]
        used.clear()
        await ready_again(http, storage.url)


async def test_no_request_waits_for_a_bucket_that_gives_no_answer(tmp_path, monkeypatch):
    """Without the time limit, both requests would wait for a minute."""
    for name, value in {"EVERY": 0.2, "LIMIT": 0.5, "_LASTING": 0.5}.items():
        monkeypatch.setattr(reachability, name, value)
    with seaweedfs(tmp_path / "server") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        config = Config(port=0, data=str(tmp_path / "data"), store=server.url())
        async with serve.running("storage", config, build) as storage, StorageClient.connect(storage.url) as client:
            client._connection.retry_for = 0.0
            await client.put(b"before")
            server.pause()
            async with asyncio.timeout(30):
                for data in (b"under way", b"later"):
                    with pytest.raises(Error, match="This has lasted since") as refused:
                        await client.put(data)
                    assert refused.value.code is Code.UNAVAILABLE
                    assert refused.value.extra["retry_after"] == 1
            server.resume()
            assert await client.is_ready(wait=TIMEOUT)
            assert (await client.put(b"later")).new
