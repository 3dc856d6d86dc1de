"""Test that programs which save the same result at once do not harm each other's files."""

import asyncio
import os
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from safelight.cli.photos.results import ResultDirectory
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import Output, State, Task

FIRST, REST = b"x" * 1000, b"y" * 1000
TASK = Task(
    id="1-aaaaaaaaaa",
    state=State.FINISHED,
    seq=1,
    created=0,
    changed=0,
    filename="photo.png",
    outputs=[Output(name="image", digest="0" * 64, size=2000, media_type="image/png")],
)
NAME = "photo.image.png"


class Slow:
    """A server that sends the first half of each result at once, and the rest when it is told to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self.address = ""

    async def answer(self, request):
        response = web.StreamResponse(headers={"Content-Length": "2000"})
        told = asyncio.Event()
        await response.prepare(request)
        await response.write(FIRST)
        await self.asked.put(told)
        await told.wait()
        await response.write(REST)
        return response


@asynccontextmanager
async def serving(answer):
    """Answer every request with a handler; yield the server's address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def slow():
    server = Slow()
    async with serving(server.answer) as server.address:
        yield server


async def test_two_savers_of_one_file_leave_a_complete_one(slow, tmp_path):
    path = tmp_path / "photo.png"
    async with Client.connect(slow.address) as client:
        one = asyncio.create_task(client.save(TASK.id, path))
        first = await slow.asked.get()
        two = asyncio.create_task(client.save(TASK.id, path))
        await slow.asked.get()
        first.set()
        assert await one == 2000
        assert path.read_bytes() == FIRST + REST
        two.cancel()
        await asyncio.wait([two])
    assert path.read_bytes() == FIRST + REST
    assert [each.name for each in tmp_path.iterdir()] == ["photo.png"]


async def test_a_run_that_fails_removes_no_result_of_another(slow, tmp_path):
    async with Client.connect(slow.address) as client:
        failing = asyncio.create_task(ResultDirectory(tmp_path).save(client, TASK))
        await slow.asked.get()
        other = asyncio.create_task(ResultDirectory(tmp_path, overwrite=True).save(client, TASK))
        (await slow.asked.get()).set()
        assert (await other).paths == [tmp_path / NAME]
        failing.cancel()
        await asyncio.wait([failing])
    assert (tmp_path / NAME).read_bytes() == FIRST + REST


async def test_what_killed_runs_left_is_removed_after_a_day(slow, tmp_path):
    old, new = (tmp_path / f".safelight-{digit * 16}.part" for digit in "ab")
    foreign = tmp_path / ".other.part"
    for path in (old, new, foreign):
        path.write_bytes(FIRST)
    for path in (old, foreign):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    async with Client.connect(slow.address) as client:
        saving = asyncio.create_task(ResultDirectory(tmp_path).save(client, TASK))
        (await slow.asked.get()).set()
        assert (await saving).problem is None
    assert {path.name for path in tmp_path.iterdir()} == {new.name, foreign.name, NAME}


async def test_a_name_of_the_greatest_length_can_be_saved(slow, tmp_path):
    path = tmp_path / ("a" * 255)
    async with Client.connect(slow.address) as client, asyncio.TaskGroup() as group:
        saving = group.create_task(client.save(TASK.id, path))
        (await slow.asked.get()).set()
        assert await saving == 2000


@pytest.mark.parametrize("broken_at", [2000, 1500])
async def test_connections_that_break_save_a_result_as_long_as_each_brings_some_of_it(tmp_path, broken_at):
    """Even if no time is left for retries since the first of them broke."""
    body = FIRST + REST

    async def answer(request):
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200, headers={"ETag": '"tag"'})
        response.content_length = len(body) - start
        await response.prepare(request)
        brings = start < broken_at
        if brings:
            await response.write(body[start : start + 500])
        if not brings or start + 500 < len(body):
            request.transport.close()
        return response

    async with serving(answer) as address, Client.connect(address) as client:
        client._connection.retry_for = 0.0
        saving = client.save(TASK.id, tmp_path / NAME)
        if broken_at == len(body):
            assert await saving == len(body)
            assert (tmp_path / NAME).read_bytes() == body
        else:
            with pytest.raises(Error) as refused:
                await saving
            assert refused.value.code is Code.UNAVAILABLE
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("creation", ["touch", "open"])
def test_a_file_that_a_thread_creates_after_its_caller_was_cancelled_is_removed(tmp_path, monkeypatch, creation):
    """`touch` reserves the name of a result, `open` begins the file that will replace it."""
    create, begun, go_on = getattr(Path, creation), threading.Event(), threading.Event()

    def late(path, *arguments, **named):
        begun.set()
        go_on.wait()
        return create(path, *arguments, **named)

    async def interrupt():
        async def answer(request):
            return web.Response(body=FIRST + REST)

        async with serving(answer) as address, Client.connect(address) as client:
            monkeypatch.setattr(Path, creation, late)
            saving = asyncio.create_task(ResultDirectory(tmp_path).save(client, TASK))
            await asyncio.to_thread(begun.wait)
            saving.cancel()
            await asyncio.wait([saving])
            assert saving.cancelled()
            go_on.set()

    asyncio.run(interrupt())
    assert begun.is_set()
    assert list(tmp_path.iterdir()) == []
