"""Read a service's metrics, and wait for one to change."""

import asyncio
from collections.abc import Callable

import aiohttp


async def metric(http: aiohttp.ClientSession, url: str, name: str) -> float:
    """Return the value of a metric by its name and labels as in the text, or 0 if it is missing."""
    async with http.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next((float(line.removeprefix(f"{name} ")) for line in lines if line.startswith(f"{name} ")), 0.0)


async def until(
    http: aiohttp.ClientSession, url: str, name: str, fits: Callable[[float], bool], *, timeout: float = 60.0
) -> None:
    """Wait until a metric satisfies a condition."""
    async with asyncio.timeout(timeout):
        while not fits(await metric(http, url, name)):
            pass  # each check is a request, which lets the service run
