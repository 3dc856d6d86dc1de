"""Readers that must see all events: a stream of server-sent events, and webhook calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web

from kills.history import History
from safelight.wire import Event


async def follow_stream(
    http: aiohttp.ClientSession, url: str, history: History, shown: Mapping[str, str] | None = None
) -> None:
    """Follow the stream of a master until cancelled, and resume it by its ids when it breaks, as a browser does.

    `shown` are the headers with the credentials.
    """
    seen, last = history.readers.setdefault("stream", []), 0
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=25)
    while True:
        headers = {**(shown or {}), "Accept": "text/event-stream", "Last-Event-ID": str(last)}
        try:
            async with http.get(f"{url}/events", headers=headers, timeout=timeout) as answer:
                async for line in answer.content:
                    if line.startswith(b"data: ") and line.startswith(b'data: {"seq"'):
                        event = msgspec.json.decode(line[6:], type=Event)
                        seen.append(event)
                        last = event.seq
        except (aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(0.1)


@asynccontextmanager
async def webhooks(history: History, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Receive webhook calls; yield the URL for them."""
    history.called = {}

    async def called(request: web.Request) -> web.Response:
        told = msgspec.json.decode(await request.read())
        assert history.called is not None
        history.called.setdefault(told["task"]["id"], []).append(told["event"])
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", called)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
