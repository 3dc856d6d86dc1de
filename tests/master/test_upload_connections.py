"""Test uploads over connections: limits, silent and vanished clients, refusals while a client sends, streaming."""

from __future__ import annotations

import asyncio

import pytest

from master.forms import FORM, JSON, form, part
from support.leases import digest_of
from support.metrics import metric, until
from support.photos import photo

IN_PROGRESS = "safelight_uploads_in_progress"


async def test_an_upload_over_the_limit_is_told_when_to_retry(master, http, client):
    gate = asyncio.Event()

    async def slow():
        yield part("image", photo(1))[:200]
        await gate.wait()
        yield form(part("image", photo(1)))[200:]

    async def upload() -> int:
        async with http.post(f"{master.url}/task", data=slow(), headers=JSON) as answer:
            return answer.status

    async with asyncio.TaskGroup() as group:
        uploads = [group.create_task(upload()) for _ in range(4)]
        await until(http, master.url, IN_PROGRESS, lambda count: count == 4)
        async with http.post(f"{master.url}/task", data=form(part("image", photo(1))), headers=FORM) as answer:
            assert answer.status == 429
            assert int(answer.headers["Retry-After"]) >= 1
        gate.set()
    assert {task.result() for task in uploads} == {200}
    assert await metric(http, master.url, IN_PROGRESS) == 0


@pytest.mark.slow
async def test_a_silent_client_is_given_up(master, http, client, storage):
    never = asyncio.Event()

    async def silent():
        yield part("image", photo(1) + bytes(2 << 20))[: 1 << 20]
        await never.wait()

    async with http.post(f"{master.url}/task", data=silent(), headers=JSON) as answer:
        assert answer.status == 400
        assert "Nothing arrived" in (await answer.json())["detail"]
    assert (await storage.info()).blobs == 0
    assert (await client.tasks()).tasks == []


@pytest.mark.parametrize("size", [1000, 2 << 20])
async def test_a_client_that_vanishes_leaves_nothing(master, http, client, storage, size):
    body = form(part("image", photo(1) + bytes(size)))
    host, port = master.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /task HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {FORM['Content-Type']}\r\n\r\n"
    writer.write(head.encode() + body[:-100])
    await writer.drain()
    await until(http, master.url, IN_PROGRESS, lambda count: count == 1)
    writer.transport.abort()
    await until(http, master.url, IN_PROGRESS, lambda count: count == 0)
    assert (await storage.info()).blobs == 0
    assert (await client.tasks()).tasks == []


async def test_a_refusal_reaches_a_client_that_is_still_sending(master, http):
    async def endless():
        yield part("image", b"words " * 1000)
        while True:
            yield bytes(1 << 16)

    async with http.post(f"{master.url}/task", data=endless(), headers=JSON) as answer:
        assert answer.status == 415


async def test_large_photos_are_streamed(client, storage):
    data = photo(1) + bytes(3 << 20)

    async def pieces():
        for start in range(0, len(data), 10_000):
            yield data[start : start + 10_000]

    task = await client.upload(pieces)
    assert task.input is not None
    assert task.input.digest == digest_of(data)
    assert await storage.read(task.input.digest) == data


@pytest.mark.parametrize(("size", "recipe", "wanted"), [(1 << 40, "invert", b"413"), (None, "invert", b"100")])
async def test_a_body_is_requested_only_if_it_will_be_accepted(master, size, recipe, wanted):
    body = form(part("image", photo(5), filename="a.png"))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(master.url.rpartition(":")[2]))
    try:
        head = f"POST /task?recipe={recipe} HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
        head += f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {size or len(body)}\r\n\r\n"
        writer.write(head.encode())
        first = await asyncio.wait_for(reader.readline(), 30)
        assert first.startswith(b"HTTP/1.1 " + wanted)
        if wanted == b"100":
            assert await reader.readline() == b"\r\n"
            writer.write(body)
            assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200")
    finally:
        writer.close()
