"""Wait for what a service says about its readiness."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from support.programs.until import until

TIMEOUT = 60.0


async def not_ready(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return what a service answers once it is not ready."""
    said: list[dict[str, Any]] = []

    async def refuses() -> bool:
        async with http.get(f"{url}/readyz") as answer:
            if answer.status == 503:
                said.append(await answer.json())
        return bool(said)

    await until(refuses, timeout=TIMEOUT)
    return said[0]


async def ready_again(http: aiohttp.ClientSession, url: str) -> None:
    """Wait until a service is ready."""
    async with asyncio.timeout(TIMEOUT), http.get(f"{url}/readyz", params={"wait": TIMEOUT}) as answer:
        assert answer.status == 200, await answer.text()


async def away_and_back(url: str, backend: str, *, stop: Any, start: Any) -> str:
    """Take a backend away and bring it back; return what the service said meanwhile. The process stays alive."""
    async with aiohttp.ClientSession() as http:
        await ready_again(http, url)
        assert await reachable(http, url) == {backend: 1.0}
        await asyncio.to_thread(stop)
        said = await not_ready(http, url)
        assert said["waiting_for"] == [backend]
        assert "This has lasted since 20" in said["detail"]
        assert await reachable(http, url) == {backend: 0.0}
        async with http.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        await asyncio.to_thread(start)
        await ready_again(http, url)
    return str(said["detail"])


async def reachable(http: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """Return what the metrics say about the backends of a service."""
    async with http.get(f"{url}/metrics") as answer:
        lines = [line for line in (await answer.text()).splitlines() if line.startswith("safelight_backend_reachable{")]
    return {line.partition('"')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}
