"""Test that every route with GET answers HEAD with the same status and headers, and without a body."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import aiohttp

from access.tenants import finish_one
from engine.images import encoded, photo
from safelight.client.base import bearer
from safelight.client.storage import StorageClient

SMALL = encoded(photo().resize((12, 8)))
FRAMING = {"Date", "Transfer-Encoding"}
"""Headers that describe the message and not its content (RFC 9110, 9.3.2; RFC 9112, 6.1)."""
CHANGING = {"/metrics", "/last-hour", "/services", "/summary", "/info", "/storage", "/audit"}
"""Headers that can differ between two GET requests."""


async def asked(service, method, path, key):
    """Send a request and another after it on one connection; return the status and headers, and the bytes between."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(60):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        between = b""
        if method == "HEAD":
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            between = (await reader.read()).partition(b"HTTP/1.1 200 OK")[0]
    writer.close()
    return int(lines[0].split()[1]), headers, between


async def upload(plane, http, recipe="invert"):
    """Create a task."""
    form = aiohttp.FormData({"recipe": recipe})
    form.add_field("image", SMALL, filename="cat.png", content_type="image/png")
    async with http.post(f"{plane.url('master')}/tasks", data=form, headers=plane.credentials) as answer:
        assert answer.status in (200, 201, 202), await answer.text()


async def filled(plane, http):
    """Create one object of every kind; return their ids by the names of the path parameters."""
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(
            StorageClient.connect(plane.url("storage"), credentials=bearer(plane.key))
        )
        blob = await storage.put(SMALL)
    await upload(plane, http)
    task = await finish_one(plane, SMALL)
    return {"digest": blob.digest, "key": "master_endpoint", "id": task, "name": "invert"}


async def waiting(plane, http) -> int:
    """Return how many tasks wait."""
    async with http.get(f"{plane.url('db')}/summary", headers=plane.credentials) as answer:
        return (await answer.json())["tasks"].get("waiting", 0)


async def test_every_route_answers_head_like_get_and_without_a_body(keyed, http):
    known = await filled(keyed, http)
    found = []
    for name, service in keyed.services.items():
        for template in sorted({mounted.path for route, mounted in service.routes.items() if route.method == "GET"}):
            path = re.sub(r"\{(\w+)\}", lambda part: known.get(part[1], "some-1"), template)
            status, headers, between = await asked(service, "HEAD", path, keyed.key)
            right, wanted, _ = await asked(service, "GET", path, keyed.key)
            where = (name, path, status, right, between[:100])
            assert (status, between) == (right, b""), where
            ignored = FRAMING | ({"Content-Length"} if template in CHANGING else set())
            assert headers.keys() - ignored == wanted.keys() - ignored, where
            for header in headers.keys() - ignored:
                assert headers[header] == wanted[header], (*where, header)
            found.append(status)
    assert found.count(200) > 50
    assert len(found) > 70


async def test_head_of_the_next_task_takes_none(keyed, http):
    """Tasks that a classic worker cannot do, and tasks in a paused queue, do not count."""
    await upload(keyed, http, "web")
    await no_task_is_next(keyed)
    await upload(keyed, http)
    for name in ("db", "master"):
        status, headers, _ = await asked(keyed.services[name], "HEAD", "/task/next", keyed.key)
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, "application/json")
    assert await waiting(keyed, http) == 2
    async with http.post(f"{keyed.url('master')}/queue/pause", headers=keyed.credentials) as answer:
        assert answer.status < 300, await answer.text()
    await no_task_is_next(keyed)


async def no_task_is_next(plane):
    for name in ("db", "master"):
        for method in ("HEAD", "GET"):
            assert (await asked(plane.services[name], method, "/task/next", plane.key))[0] == 404, (name, method)


async def test_head_of_a_prefix_leads_to_the_page_too(plane, http):
    await plane.start("keyvaluestore")
    for name in ("db", "storage"):
        await plane.start(name)
    master = await plane.start("master", public_url="https://photos.example/ours")
    answers = [await asked(master, method, "/ours", plane.key) for method in ("HEAD", "GET")]
    assert [(status, headers["Location"]) for status, headers, _ in answers] == [(308, "/ours/")] * 2
