"""Test that large downloads are redirected to the bucket for authorised clients, with the same headers."""

from __future__ import annotations

import hashlib
import os
import time
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from safelight.client.master import Client
from safelight.storage.bucket import signing
from support.photos import photo
from support.programs.system import system

pytestmark = pytest.mark.slow

LARGE = photo(1) + os.urandom(3 << 20)


async def test_a_client_fetches_a_large_file_from_the_bucket_itself(seaweed, bucket_url, tmp_path):
    public = f"{seaweed.endpoint}/photos"
    settings = {"storage": ["--store", bucket_url, "--public-bucket", public]}
    environments = {"storage": seaweed.environment()}
    digest = hashlib.sha256(LARGE).hexdigest()
    async with (
        system(tmp_path, workers=0, settings=settings, environments=environments) as whole,
        Client.connect(whole.master) as client,
        aiohttp.ClientSession(f"http://{whole.master}") as http,
    ):
        large = await client.upload(LARGE, filename="Größe.png", idempotency_key="large")
        small = await client.upload(photo(2), filename="small.png", idempotency_key="small")
        path = f"/task/{large.id}/original"
        async with http.get(path, params={"download": "true"}, allow_redirects=False) as answer:
            url = answer.headers["Location"]
            assert (answer.status, answer.headers["Cache-Control"]) == (307, "no-store")
            assert answer.headers["ETag"] == f'"{digest}"'
            assert url.startswith(f"{public}/")
            assert int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]) <= 60
        async with http.get(path) as streamed, http.get(path, headers={"If-None-Match": '"other"'}) as direct:
            assert str(streamed.url).startswith(public)
            assert direct.url.path == path, "the master must answer a conditional request itself"
            assert await streamed.read() == await direct.read() == LARGE
            for name in ("Content-Type", "Content-Disposition", "Content-Length", "Accept-Ranges"):
                assert streamed.headers[name] == direct.headers[name], name
            assert "private" in streamed.headers["Cache-Control"]
        async with http.get(path, headers={"Range": "bytes=5-9"}) as part:
            assert (part.status, await part.read()) == (206, LARGE[5:10])
            assert part.headers["Content-Range"] == f"bytes 5-9/{len(LARGE)}"
        async with http.head(path) as head:
            assert (head.status, head.url.path, head.content_length) == (200, path, len(LARGE))
        async with http.get(path, headers={"If-None-Match": f'"{digest}"'}) as known:
            assert known.status == 304
        async with http.get(path, headers={"Sec-Fetch-Dest": "image", "Sec-Fetch-Site": "same-origin"}) as for_page:
            assert for_page.url.path == path
        async with http.get(f"/task/{small.id}/original") as answer:
            assert answer.url.path == f"/task/{small.id}/original"
        async with client.original(large.id) as answer:
            assert await answer.read() == LARGE
        await assert_signed(http, url)


async def assert_signed(http, url):
    """Assert that the bucket refuses a link with any change."""
    tampered = url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")
    unsigned = url.partition("?")[0]
    for each in (tampered, unsigned, url.replace("attachment", "inline")):
        async with http.get(aiohttp.client.URL(each, encoded=True)) as answer:
            assert answer.status == 403, each


def test_links_are_signed_as_the_manual_of_s3_says(monkeypatch):
    """Check the example of "Authenticating requests: using query parameters" in the API reference of Amazon S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    moment = time.strptime("20130524T000000Z", "%Y%m%dT%H%M%SZ")
    monkeypatch.setattr(time, "gmtime", lambda: moment)
    url = signing.presigned("https://examplebucket.s3.amazonaws.com/test.txt", {}, seconds=86400)
    expected = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert url.endswith(f"X-Amz-Signature={expected}")
