"""Test malicious requests to every route of every service: each is refused, and none affects other clients."""

import asyncio
import gzip
import io
import json
import re
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from safelight import serve
from safelight.access.route import ROUTES
from safelight.client import base
from safelight.client.master import Client
from safelight.db.__main__ import Config as DbConfig
from safelight.db.__main__ import build as build_db
from safelight.keyvaluestore.__main__ import Config as KeyValueStoreConfig
from safelight.keyvaluestore.__main__ import build as build_keyvaluestore
from safelight.master.__main__ import Config as MasterConfig
from safelight.master.__main__ import build as build_master
from safelight.storage.__main__ import Config as StorageConfig
from safelight.storage.__main__ import build as build_storage

JSON, TOML, FORM = "application/json", "application/toml", "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
MIB = 1 << 20

PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\nx\r\n'
BODIES = {
    "gzip that is none": ({"Content-Encoding": "gzip", "Content-Type": JSON}, b"no gzip"),
    "deflate that is none": ({"Content-Encoding": "deflate", "Content-Type": MULTIPART + "; boundary=b"}, b"\xff" * 99),
    "a gzip bomb": ({"Content-Encoding": "gzip", "Content-Type": JSON}, gzip.compress(bytes(64 * MIB), 1)),
    "several encodings": ({"Content-Encoding": "gzip, br, x", "Content-Type": "application/octet-stream"}, b"x"),
    "no boundary": ({"Content-Type": MULTIPART}, PART),
    "an empty boundary": ({"Content-Type": MULTIPART + '; boundary=""'}, PART),
    "a long boundary": ({"Content-Type": MULTIPART + "; boundary=" + "b" * 7000}, PART),
    "a boundary that is not ASCII": ({"Content-Type": MULTIPART + "; boundary=\xe9"}, PART),
    "a form that breaks off": ({"Content-Type": MULTIPART + "; boundary=b"}, PART),
    "a form with a long header": (
        {"Content-Type": MULTIPART + "; boundary=b"},
        b"--b\r\nX: " + b"x" * MIB + b"\r\n\r\nx\r\n--b--\r\n",
    ),
    "a form in a form": (
        {"Content-Type": MULTIPART + "; boundary=b"},
        b'--b\r\nContent-Disposition: form-data; name="value"\r\nContent-Type: multipart/mixed\r\n\r\nx\r\n--b--\r\n',
    ),
    "a form of many parts": (
        {"Content-Type": MULTIPART + "; boundary=b"},
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 20_000 + b"--b--\r\n",
    ),
    "a part in base64": (
        {"Content-Type": MULTIPART + "; boundary=b"},
        b'--b\r\nContent-Disposition: form-data; name="value"\r\nContent-Transfer-Encoding: base64\r\n\r\n!\r\n--b--',
    ),
    "a charset that nobody knows": ({"Content-Type": FORM + "; charset=klingon"}, b"value=x"),
    "JSON in a charset that nobody knows": ({"Content-Type": JSON + "; charset=klingon"}, b'{"value": "x"}'),
    "a form that is not UTF-8": ({"Content-Type": FORM}, b"value=%ff"),
    "many fields": ({"Content-Type": FORM}, b"a=1&" * 100_000),
    "a broken content type": ({"Content-Type": ';;;="\\'}, b"x"),
    "deep JSON": ({"Content-Type": JSON}, b"[" * 200_000),
    "deep JSON objects": ({"Content-Type": JSON}, b'{"a":' * 100_000),
    "deep TOML": ({"Content-Type": TOML}, b"a=" + b"[" * 100_000),
    "dotted TOML": ({"Content-Type": TOML}, b"a." * 200_000 + b"a=1"),
    "a long number": ({"Content-Type": JSON}, b"9" * 500_000),
    "numbers that are none": ({"Content-Type": JSON}, b'{"wait": NaN, "value": Infinity, "offset": -1e999}'),
    "half a character": ({"Content-Type": JSON}, b'{"value": "\\ud800", "name": "\\udfff"}'),
    "a zero": ({"Content-Type": JSON}, b'{"value": "\\u0000", "instance": "\\u0000"}'),
    "not UTF-8": ({"Content-Type": JSON}, b'{"value": "\xff\xfe"}'),
    "null": ({"Content-Type": JSON}, b"null"),
    "an empty list": ({"Content-Type": JSON}, b"[]"),
    "a list of everything": ({"Content-Type": JSON}, b'[null, 1, "x", {}, []]'),
    "nothing": ({"Content-Type": JSON}, b""),
    "an upload of wrong numbers": (
        {"Tus-Resumable": "1.0.0", "Upload-Length": "9" * 5000, "Upload-Offset": "-0", "Content-Type": "x/y"},
        b"x",
    ),
    "an upload of wrong metadata": (
        {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": "a " + "," * 4000 + "b =,c \xff"},
        b"",
    ),
    "an upload of metadata that are not text": (
        {"Tus-Resumable": "1.0.0", "Upload-Length": "9", "Upload-Metadata": "\xff aGk="},
        b"",
    ),
    "an upload with a checksum that is not text": (
        {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": "9",
            "Upload-Offset": "0",
            "Upload-Checksum": "\xff x",
            "Content-Type": "application/offset+octet-stream",
        },
        b"x",
    ),
    "an upload with a wrong checksum": (
        {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": "9",
            "Upload-Offset": "0",
            "Upload-Checksum": "sha1 " + "A" * 4000,
            "Content-Type": "application/offset+octet-stream",
        },
        b"x",
    ),
    "an override of the method": ({"Tus-Resumable": "1.0.0", "X-HTTP-Method-Override": "\xff\x01"}, b""),
}
HEADERS = {
    "a long range": {"Range": "bytes=" + "9" * 5000 + "-"},
    "many ranges": {"Range": "bytes=" + "0-0," * 1500},
    "wrong conditions": {"If-None-Match": '"' * 4000, "If-Modified-Since": "\xff" * 99, "If-Range": "W/\x80"},
    "a number of the past": {"Last-Event-ID": "9" * 5000},
    "a key of no characters": {"Idempotency-Key": "\x7f\xff"},
    "wrong credentials": {"Authorization": "Bearer \xff\xfe" + "x" * 4000, "Cookie": "=;" * 2000},
    "a session that is not text": {"Cookie": "safelight_session=\xff", "Origin": "\xff", "Safelight-Tenant": "\xff"},
    "wants everything": {"Accept": ",".join(["a/b;q=" + "0" * 50] * 100), "Accept-Encoding": "gzip;q=x"},
}
QUERIES = (
    "wait=nan&after=nan",
    "wait=inf&limit=inf",
    "wait=-1&limit=-1&after=-1",
    "after=" + "9" * 5000,
    "limit=1e999",
    "tasks=" + "," * 4000,
    "state=%00&recipe=%ff&batch=%0d%0a&before=%F0%9F",
    "before=" + "1-" * 2000,
    "after=1&after=2",
    "=&==&%=&size=%00&output=..%2f",
    "id=%ed%a0%80",
)
PLACES = ("%00", "%ff", "..%2f..%2fetc%2fpasswd", "a%0d%0aX:y", "x" * 4000, "%ed%a0%80", "%F0%9F%98%80", "1-aaaaaaaaaa")


def captured(build, apps):
    @asynccontextmanager
    async def building(config, service):
        async with build(config, service) as app:
            apps[service.name] = app
            yield app

    return building


@pytest.fixture
async def services(tmp_path):
    """Run every service in this process; yield them with their routes."""
    apps, running = {}, {}
    async with AsyncExitStack() as stack:

        async def start(name, build, config):
            running[name] = await stack.enter_async_context(serve.running(name, config, captured(build, apps)))
            return running[name]

        def settings(name, **more):
            return {"port": 0, "data": str(tmp_path / name), **more}

        first = await start("keyvaluestore", build_keyvaluestore, KeyValueStoreConfig(**settings("keyvaluestore")))
        where = {"keyvaluestore": first.url.removeprefix("http://")}
        await start("db", build_db, DbConfig(**settings("db", **where)))
        await start("storage", build_storage, StorageConfig(**settings("storage", idle_timeout=2.0, **where)))
        options = settings("master", upload_idle_timeout=2.0, max_photo=4 * MIB, **where)
        master = await start("master", build_master, MasterConfig(**options))
        for name in ("db", "storage"):
            await master.discovery.wait_for(name)
        yield {name: (service, apps[name][ROUTES]) for name, service in running.items()}


async def status_of(service, method, target, headers, body):
    """Send a request byte for byte; return the status of the answer, or 0 if the connection was closed without one."""
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nConnection: close\r\n"
    head += f"Content-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        async with asyncio.timeout(60):
            try:
                writer.write(head.encode("latin-1") + b"\r\n" + body)
                await writer.drain()
            except ConnectionError:  # the answer came before the end of the request
                pass
            try:
                line = await reader.readline()
            except ConnectionError:
                return 0
            return int(line.split()[1]) if line else 0
    finally:
        writer.transport.abort()


def targets(path, value="x"):
    return re.sub(r"\{[^}]*\}", value, path)


async def refused(services, requests):
    """Send all requests to all routes; return those that got a 5xx or no answer."""
    wrong = []
    for name, (service, routes) in services.items():
        for route in routes:
            if route.path == "/shutdown" or route.method == "HEAD":
                continue
            for what, target, headers, body in requests(route):
                status = await status_of(service, route.method, target, headers, body)
                if status >= 500:
                    wrong.append((name, route.method, route.path, what, status))
    return wrong


async def all_answer(services):
    async with base.session() as session:
        for service, _ in services.values():
            async with session.get(f"{service.url}/readyz") as answer:
                assert answer.status == 200


async def test_a_header_that_is_not_text_is_refused(services):
    master, _ = services["master"]
    for what, (method, target, status) in {
        "an upload of metadata that are not text": ("POST", "/uploads", 400),
        "an upload with a checksum that is not text": ("POST", "/uploads", 400),
        "a session that is not text": ("GET", "/summary", 403),
    }.items():
        headers, body = BODIES.get(what) or (HEADERS[what], b"")
        assert await status_of(master, method, target, headers, body) == status, what
    for cookie in ("safelight_session=\xff", 'safelight_session="\xff"; safelight_session=\xfe'):
        assert await status_of(master, "GET", "/summary", {"Cookie": cookie}, b"") == 200  # as from this machine
        headers = {"Cookie": cookie, "Origin": f"http://127.0.0.1:{master.port}"}
        assert await status_of(master, "DELETE", "/session", headers, b"") == 204


@pytest.mark.slow
async def test_no_body_causes_an_internal_error(services):
    def requests(route):
        if route.method in ("POST", "PUT", "PATCH", "DELETE"):
            for what, (headers, body) in BODIES.items():
                yield what, targets(route.path), headers, body

    assert await refused(services, requests) == []
    await all_answer(services)


@pytest.mark.slow
async def test_no_header_query_or_path_causes_an_internal_error(services):
    def requests(route):
        for what, headers in HEADERS.items():
            yield what, targets(route.path), headers, b""
        for query in QUERIES:
            yield query[:40], f"{targets(route.path)}?{query}", {}, b""
        if "{" in route.path:
            for place in PLACES:
                yield place[:40], targets(route.path, place), {}, b""

    assert await refused(services, requests) == []
    await all_answer(services)


LONG = {
    "dotted keys": (TOML, lambda: b"a." * 200_000 + b"a = 1"),
    "quoted keys": (TOML, lambda: b'"a".' * 200_000 + b"a = 1"),
    "many dotted keys": (TOML, lambda: b"\n".join(b"a." * 15 + b"b%d = 1" % n for n in range(25_000))),
    "a long array": (TOML, lambda: b"a = [" + b"1," * 500_000 + b"]"),
    "many tables": (TOML, lambda: b"\n".join(b"[a%d]" % n for n in range(90_000))),
    "escapes": (TOML, lambda: b'a = "' + b"\\n" * 500_000 + b'"'),
    "too long": (TOML, lambda: b'a = "' + b"x" * (4 * MIB - 100) + b'"'),
    "many lists": (JSON, lambda: b"[" + b"[]," * 1_300_000 + b"[]]"),
    "a long unknown field": (
        JSON,
        lambda: json.dumps({"outputs": {"a": {"operations": [{"op": "x" * (3 * MIB)}]}}}).encode(),
    ),
    "a long name": (JSON, lambda: json.dumps({"outputs": {"x" * (3 * MIB): {}}}).encode()),
    "many outputs": (JSON, lambda: json.dumps({"outputs": {f"o{n}": {} for n in range(150_000)}}).encode()),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", LONG)
async def test_a_long_recipe_delays_no_other_request(services, what):
    """The answer arrives within seconds; meanwhile the master answers other requests."""
    kind, make = LONG[what]
    body = make()
    master, _ = services["master"]
    longest = 0.0
    async with base.session() as session, Client.connect(master.url) as client:
        start = time.monotonic()
        asking = asyncio.create_task(
            status_of(master, "POST", "/recipes/check", {"Content-Type": kind, "Accept": JSON}, body)
        )
        while not asking.done():
            began = time.monotonic()
            assert await client.health()
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(0.01)
        assert asking.result() in (413, 422)
        assert time.monotonic() - start < 60.0
        async with session.post(
            f"{master.url}/recipes/check", data=io.BytesIO(body), headers={"Content-Type": kind}
        ) as answer:
            assert len(await answer.read()) < 4096
    # While another thread computes, each switch of threads adds up to five milliseconds.
    assert longest < 5.0
