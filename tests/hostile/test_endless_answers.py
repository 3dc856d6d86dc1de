"""Test clients of a server that redirects health checks, or whose answers never end."""

import asyncio

import pytest
from aiohttp import web

from safelight.client.availability.instances import Several
from safelight.client.availability.liveness import Liveness
from safelight.client.base import Connection, session
from safelight.errors import Code, Error

pytestmark = pytest.mark.slow


async def test_a_health_check_follows_no_redirect_and_ends(monkeypatch):
    """A service that only answers the question for its health may be any program."""
    monkeypatch.setattr("safelight.client.availability.liveness._CHECK_AFTER", 0.1)
    monkeypatch.setattr("safelight.client.availability.liveness._EVERY", 0.05)
    asked: list[str] = []
    ended, enough = asyncio.Event(), asyncio.Event()

    async def answer(request):
        asked.append(request.path)
        if request.path == "/summary":
            await enough.wait()
            return web.json_response({})
        if asked.count("/healthz") == 1:
            return web.Response(status=307, headers={"Location": "/elsewhere"})
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 16))
        finally:
            ended.set()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with asyncio.timeout(30), session() as http, Liveness.open(http) as liveness:
        connection = Connection(http, Several(address), liveness=liveness, retry_for=0.0)
        call = asyncio.create_task(connection.call("GET", "/summary", bytes, retry=False))
        await ended.wait()
        enough.set()
        await call
    await runner.cleanup()
    assert set(asked) == {"/summary", "/healthz"}


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    ],
)
async def test_an_answer_that_never_ends_is_given_up(monkeypatch, first, again):
    """A server that sends a byte from time to time cannot keep a call waiting without limit."""
    for module in ("answers", "base"):
        monkeypatch.setattr(f"safelight.client.{module}.ANSWER_TIME", 0.5)
    serving = set()

    async def trickle(reader, writer):
        serving.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            while True:
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            writer.close()

    listening = await asyncio.start_server(trickle, "127.0.0.1", 0)
    address = Several(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    async with asyncio.timeout(30), session() as http, Liveness.open(http) as known:
        for liveness in (None, known):
            connection = Connection(http, address, liveness=liveness, idle_timeout=0.2)
            with pytest.raises(Error) as refused:
                await connection.call("GET", "/summary", bytes, retry=False)
            assert refused.value.code is Code.UNAVAILABLE
    listening.close()
    for one in serving:
        one.cancel()
    await asyncio.gather(*serving, return_exceptions=True)
