"""Test slow answers: uploads wait for them, other requests do not."""

import asyncio
import socket

import pytest
from aiohttp import web

from safelight.client.availability.instances import Several
from safelight.client.availability.liveness import Liveness, while_waiting
from safelight.client.base import Connection, session
from safelight.client.master import Client
from safelight.client.storage import StorageClient
from safelight.errors import Error

BLOB = {"digest": "0" * 64, "size": 3}


@pytest.fixture
async def slow():
    """Run a server that answers one second after a request; yield a client that waits for less time."""

    async def answer(request):
        await request.read()
        await asyncio.sleep(1.0)
        return web.json_response(BLOB)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with session() as http:
        yield Connection(http, Several(f"127.0.0.1:{runner.addresses[0][1]}"), retry_for=0.0, idle_timeout=0.2)
    await runner.cleanup()


@pytest.mark.slow
async def test_an_upload_waits_for_its_answer(slow):
    assert (await StorageClient(slow).put(b"abc")).size == 3
    with pytest.raises(Error, match="could not be decoded"):  # the answer arrived, and is not a task
        await Client(slow).upload(b"abc")


async def test_other_requests_do_not_wait(slow):
    with pytest.raises(Error, match="No answer"):
        await Client(slow).task("1-abc")


async def test_people_are_told_of_a_service_that_accepts_connections_and_does_not_answer(monkeypatch):
    for name, value in {"_CHECK_AFTER": 0.1, "_EVERY": 0.05, "_TOLD_AFTER": 0.1, "_HEALTH": 2.0}.items():
        monkeypatch.setattr(f"safelight.client.availability.liveness.{name}", value)
    told: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    while_waiting.set(lambda error, left: told.put_nowait((error.detail, left)))
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts connections
        address = "http://{}:{}".format(*server.getsockname())
        async with asyncio.timeout(30), session() as http, Liveness.open(http) as liveness:
            connection = Connection(http, Several(address), liveness=liveness, retry_for=0.0)
            call = asyncio.create_task(connection.call("GET", "/summary", bytes, retry=False))
            assert await told.get() == (f"{address} does not answer yet.", 1.9)
            assert not call.done(), "people were told after the call had failed"
            with pytest.raises(Error, match="No answer"):
                await call
    assert told.empty()
