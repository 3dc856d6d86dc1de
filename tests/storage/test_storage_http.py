"""Test storage's routes: uploads, ranges, conditions, and upload and download of the classic protocol."""

from __future__ import annotations

import asyncio
import io

import aiohttp
import pytest

from safelight import serve
from safelight.errors import Code, Error
from safelight.storage.__main__ import Config, build
from storage.content import chunks, digest_of, files, made
from support.metrics import metric

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1000, 3 * MIB])
async def test_put_and_read_by_the_client(client, size):
    data = made(size)
    blob = await client.put(data)
    assert (blob.digest, blob.size) == (digest_of(data), size)
    assert await client.read(blob.digest) == data
    assert blob.new
    assert await client.put(chunks(data), expected=blob.digest) == blob.evolve(new=False)
    info = await client.info()
    assert (info.blobs, info.size) == (1, size)
    assert info.free is None or info.free > 0  # a bucket does not report it


async def test_a_new_blob_is_201_and_a_known_one_is_200(service, http):
    data = made(1000)
    for status in (201, 200):
        async with http.post(f"{service.url}/blobs", data=data) as answer:
            assert answer.status == status
            assert answer.headers["ETag"] == f'"{digest_of(data)}"'
            assert (await answer.json())["new"] is (status == 201)


async def test_a_wrong_digest_is_refused(client):
    with pytest.raises(Error) as caught:
        await client.put(b"bytes", expected=digest_of(b"others"))
    assert caught.value.code is Code.DIGEST_MISMATCH


async def test_head_and_headers(client):
    data = made(1000)
    blob = await client.put(data)
    async with client.open(blob.digest, method="HEAD") as head, client.open(blob.digest) as get:
        for answer in (head, get):
            assert answer.status == 200
            assert int(answer.headers["Content-Length"]) == 1000
            assert answer.headers["ETag"] == f'"{blob.digest}"'
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Disposition"] == "attachment"
            assert answer.headers["Content-Type"] == "application/octet-stream"
        assert await head.read() == b""
        assert await get.read() == data


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=990-", 990, 1000),
        ("bytes=-10", 990, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=500-99999", 500, 1000),
        ("bytes=0-", 0, 1000),
        (f"bytes=900-{10**30}", 900, 1000),
        (f"bytes=-{10**30}", 0, 1000),
    ],
)
async def test_ranges(client, asked, start, stop):
    data = made(1000)
    blob = await client.put(data)
    for method in ("GET", "HEAD"):
        async with client.open(blob.digest, method=method, headers={"Range": asked}) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1000"
            assert int(answer.headers["Content-Length"]) == stop - start
            assert await answer.read() == (data[start:stop] if method == "GET" else b"")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-"])
async def test_a_range_that_is_not_understood_is_ignored(client, asked):
    blob = await client.put(made(1000))
    async with client.open(blob.digest, headers={"Range": asked}) as answer:
        assert answer.status == 200
        assert await answer.read() == made(1000)


@pytest.mark.parametrize(
    ("size", "asked"), [(1000, "bytes=1000-"), (1000, "bytes=5000-6000"), (0, "bytes=0-"), (9, "bytes=-0")]
)
async def test_a_range_past_the_end_is_refused(service, http, client, size, asked):
    blob = await client.put(made(size))
    async with http.get(f"{service.url}/blobs/{blob.digest}", headers={"Range": asked}) as answer:
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        assert (await answer.json())["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": "ETAG"}, 304),
        ({"If-None-Match": "W/ETAG"}, 304),
        ({"If-None-Match": '"other", ETAG'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": "ETAG"}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": "W/ETAG"}, 412),
        ({"If-Range": "ETAG", "Range": "bytes=0-9"}, 206),
        ({"If-Range": '"other"', "Range": "bytes=0-9"}, 200),
        ({"If-Range": "Wed, 21 Oct 2015 07:28:00 GMT", "Range": "bytes=0-9"}, 200),
        ({"If-Modified-Since": "Wed, 21 Oct 2099 07:28:00 GMT"}, 200),
    ],
)
async def test_conditions(service, http, client, headers, status):
    data = made(1000)
    blob = await client.put(data)
    sent = {name: value.replace("ETAG", f'"{blob.digest}"') for name, value in headers.items()}
    async with http.get(f"{service.url}/blobs/{blob.digest}", headers=sent) as answer:
        assert answer.status == status
        body = await answer.read()
        match status:
            case 200:
                assert body == data
            case 206:
                assert body == data[:10]
            case 304:
                assert body == b""
                assert answer.headers["ETag"] == f'"{blob.digest}"'


@pytest.mark.parametrize("service", ["directory"], indirect=True)
async def test_a_verified_read_finds_damage(service, client, tmp_path, http):
    blob = await client.put(made(1000))
    async with client.open(blob.digest, verify=True) as answer:
        assert await answer.read() == made(1000)
    path = tmp_path / "served" / "blobs" / blob.digest[:2] / blob.digest
    path.write_bytes(made(1000, seed=1))
    with pytest.raises(Error) as caught:
        async with client.open(blob.digest, verify=True):
            raise AssertionError
    assert caught.value.code is Code.DAMAGED_BLOB
    async with http.get(f"{service.url}/metrics") as answer:
        assert "safelight_storage_verification_failures_total 1.0" in await answer.text()


@pytest.mark.parametrize("declared", [True, False])
async def test_a_blob_past_the_limit_is_refused(service, http, declared):
    data = io.BytesIO(bytes(9 * MIB)) if declared else chunks(bytes(9 * MIB))
    async with http.post(f"{service.url}/blobs", data=data) as answer:
        assert answer.status == 413
        assert (await answer.json())["limit"] == 8 * MIB


async def test_a_stalled_upload_is_ended(service, tmp_path):
    reader, writer = await _begin(
        service, b"POST /blobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n"
    )
    writer.write(bytes(2 * MIB))
    async with asyncio.timeout(60):
        head = await reader.readuntil(b"\r\n\r\n")
    assert b" 400 " in head
    writer.close()
    assert files(tmp_path / "served", "incoming") == []


@pytest.mark.parametrize("head", [b"Content-Length: 3000000\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_client_that_leaves_half_way_leaves_nothing(service, client, head):
    _, writer = await _begin(service, b"POST /blobs HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
    body = made(2 * MIB)
    writer.write(b"%x\r\n" % len(body) + body + b"\r\n" if b"chunked" in head else body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await client.put(b"next")).size == 4
    assert (await client.info()).blobs == 1


async def test_malformed_chunks_are_an_error_of_the_client(service):
    request = b"POST /blobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await _begin(service, request)
    writer.write(b"5\r\nhello\r\nnot a length\r\n")
    async with asyncio.timeout(60):
        head = await reader.readline()
    assert b" 400 " in head
    writer.close()


async def _begin(service, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(head)
    return reader, writer


async def test_names_by_the_client(client):
    blob = await client.put(b"picture")
    other = await client.put(b"another")
    await client.name("a/b", blob.digest)
    assert (await client.named("a/b")).digest == blob.digest
    for name, digest, code in (("a/b", other.digest, Code.CONFLICT), ("c", "0" * 64, Code.NOT_FOUND)):
        with pytest.raises(Error) as caught:
            await client.name(name, digest)
        assert caught.value.code is code
    with pytest.raises(Error) as caught:
        await client.named("c")
    assert caught.value.code is Code.NOT_FOUND


async def test_collecting_needs_a_key_value_store(client):
    with pytest.raises(Error, match="without a key-value store"):
        await client.collect()


@pytest.mark.parametrize("filename", ["photo.png", "../../etc/passwd", None])
@pytest.mark.parametrize("size", [0, 1000, 3 * MIB])
async def test_classic_upload_and_download(service, http, client, filename, size):
    data = made(size)

    def form() -> aiohttp.FormData:
        form = aiohttp.FormData({"note": "before it"})
        if filename is None:
            with aiohttp.MultipartWriter("form-data") as multipart:
                part = multipart.append(io.BytesIO(data))
                part.set_content_disposition("form-data", name="image")
            return multipart
        form.add_field("image", io.BytesIO(data), filename=filename)
        return form

    for _ in range(2):
        async with http.post(f"{service.url}/upload/12", data=form()) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
    async with http.get(f"{service.url}/download/12") as answer:
        assert answer.status == 200
        assert await answer.read() == data
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await client.named("12")).digest == digest_of(data)


async def test_classic_upload_never_overwrites(service, http):
    for data, status in ((b"one", 200), (b"two", 409), (b"one", 200)):
        async with http.post(f"{service.url}/upload/1", data={"image": io.BytesIO(data)}) as answer:
            assert answer.status == status
    async with http.get(f"{service.url}/download/1") as answer:
        assert await answer.read() == b"one"


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"other": io.BytesIO(b"x")}},
        {"data": {"image": "x"}, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"json": {"image": "x"}},
        {"data": b""},
    ],
)
async def test_classic_upload_without_the_image(service, http, body):
    async with http.post(f"{service.url}/upload/1", **body) as answer:
        assert (answer.status, await answer.text()) == (400, "Image not found")


@pytest.mark.parametrize(
    "body", [b"no boundary at all", b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\nhalf"]
)
async def test_classic_upload_of_malformed_multipart(service, http, client, body):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with http.post(f"{service.url}/upload/1", data=body, headers=headers) as answer:
        assert answer.status == 400, await answer.text()
    with pytest.raises(Error):
        await client.named("1")


async def test_a_classic_download_of_an_unknown_name_is_a_plain_404(service, http):
    async with http.get(f"{service.url}/download/1") as answer:
        assert answer.status == 404
        assert answer.content_type == "text/plain"


async def test_metrics(service, http, client):
    blob = await client.put(made(1000))
    await client.put(made(1000))
    await client.read(blob.digest)
    wanted = {
        "safelight_storage_received_bytes_total 2000.0",
        "safelight_storage_sent_bytes_total 1000.0",  # counted after the answer has been sent
        "safelight_storage_blobs_stored_total 1.0",
        "safelight_storage_blobs_deduplicated_total 1.0",
    }
    async with asyncio.timeout(30):
        lines = set[str]()
        while not wanted <= lines:
            async with http.get(f"{service.url}/metrics") as answer:
                lines = set((await answer.text()).splitlines())
    assert any(line.startswith("safelight_storage_free_bytes ") for line in lines)


async def test_metrics_are_answered_while_the_disk_is_unmounted(http, tmp_path):
    config = Config(port=0, data=str(tmp_path / "data"), store=f"file://{tmp_path / 'blobs'}")
    async with serve.running("storage", config, build) as service:
        (tmp_path / "blobs").rename(tmp_path / "away")
        assert await metric(http, service.url, "safelight_storage_free_bytes") == -1
        (tmp_path / "away").rename(tmp_path / "blobs")
        assert await metric(http, service.url, "safelight_storage_free_bytes") >= 0
        name = 'safelight_requests_total{method="GET",route="/metrics",status="200"}'
        assert await metric(http, service.url, name) == 2
