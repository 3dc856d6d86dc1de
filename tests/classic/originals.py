"""A key-value store and a master written only from the page about the classic protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web


class ClassicStore:
    """A store that supports only `GET` and `POST` of a key, and forgets everything at a restart."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.unknown: list[str] = []
        self._registered = asyncio.Condition()

    async def wait_for(self, *keys: str) -> None:
        """Wait until the keys have a value."""
        async with asyncio.timeout(60), self._registered:
            await self._registered.wait_for(lambda: all(key in self.values for key in keys))

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        key = request.match_info["path"].strip("/")
        if request.method == "POST" and key and "/" not in key:
            async with self._registered:
                self.values[key] = (await request.json())["value"]
                self._registered.notify_all()
            return web.Response()
        if request.method == "GET" and key in self.values:
            return web.Response(text=self.values[key])
        self.unknown.append(f"{request.method} /{key}")
        return web.Response(status=404, text="Key not found" if request.method == "GET" else f"Cannot {request.method}")


class ClassicMaster:
    """A master that forwards every request to db or storage with its id; `tasks` are the ids that db returned."""

    def __init__(self, store: ClassicStore, http: aiohttp.ClientSession) -> None:
        self._store, self._http = store, http
        self.tasks: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/task", self._upload)
        app.router.add_get("/task/next", self._forward("db", "/task/next"))
        app.router.add_get("/task/{id}/download", self._forward("storage", "/download/{id}"))
        app.router.add_post("/task/{id}/finish", self._forward("db", "/task/{id}/finish"))
        app.router.add_get("/task/{id}/ready", self._ready)
        return app

    def _url(self, service: str, path: str) -> str:
        return f"http://{self._store.values[f'{service}endpoint']}{path}"

    async def _upload(self, request: web.Request) -> web.Response:
        body, kind = await request.read(), request.headers["Content-Type"]
        async with self._http.post(self._url("db", "/task")) as made:
            task = await made.text()
        async with self._http.post(
            self._url("storage", f"/upload/{task}"), data=body, headers={"Content-Type": kind}
        ) as stored:
            assert stored.status == 200, await stored.text()
        async with self._http.post(self._url("db", f"/task/{task}/ready")) as ready:
            assert ready.status == 200, await ready.text()
        self.tasks.append(task)
        return web.Response()

    def _forward(self, service: str, path: str):
        async def handle(request: web.Request) -> web.Response:
            url = self._url(service, path.format(**request.match_info))
            async with self._http.request(request.method, url) as answer:
                return web.Response(status=answer.status, body=await answer.read())

        return handle

    async def _ready(self, request: web.Request) -> web.Response:
        async with self._http.get(self._url("db", f"/task/{request.match_info['id']}")) as answer:
            if answer.status == 404:
                return web.Response(status=404, text="Task not found")
            return web.Response(text="true" if (await answer.json())["state"] == 2 else "false")


@asynccontextmanager
async def serving(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serve an application on loopback; yield its `host:port`."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
