"""Test the checker with a served system: it finds every broken product, and reports no error for a sound one.

The services run in one process, which is killed and restarted; clients, readers and workers use HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kills.clients import seen_all, settled, upload_repeatedly, watch
from kills.deaths import wrongly_blamed
from kills.history import History
from kills.mutations import MUTATIONS
from kills.readers import follow_stream, webhooks
from kills.workers import OddWorker
from safelight.client.master import Client
from safelight.client.storage import StorageClient
from support.photos import is_inverse, photo
from support.programs.system import System, system
from support.programs.until import until

pytestmark = pytest.mark.slow

CLIENTS, WORKERS = 3, 3
UPLOADS = 18
SETTINGS = {"master": ["--webhook-allow-private", "--webhook-retry", "1s"]}


async def judged(directory: Path, mutation: str | None, kills: int, *, time_limit: float) -> list[str]:
    """Run a system under load, kill it `kills` times, and return the checker's messages."""
    history = History(lambda number, result: is_inverse(photo(number), result))
    programs = {} if mutation is None else {"allinone": ("kills.mutated", mutation, "safelight.allinone")}
    stop, numbers = asyncio.Event(), itertools.count()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(webhooks(history))
        whole = await stack.enter_async_context(system(directory, settings=SETTINGS, together=True, programs=programs))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(Client.connect(whole.master))
        storage = await stack.enter_async_context(StorageClient.connect(whole.address("storage")))
        async with beside(
            *(OddWorker(client, storage, number).work() for number in range(WORKERS)),
            follow_stream(http, f"http://{whole.master}", history),
        ):
            watcher = asyncio.create_task(watch(client, history))
            uploads = [
                asyncio.create_task(upload_repeatedly(stop, client, history, numbers, webhook=url))
                for _ in range(CLIENTS)
            ]
            for part in range(kills + 1):
                enough = UPLOADS * (part + 1) // (kills + 1)
                await until(lambda enough=enough: len(history.acknowledged) >= enough, timeout=90)
                if part < kills:
                    await restarted(whole)
            stop.set()
            await asyncio.gather(*uploads)
            late = await ended(client, history, watcher, time_limit)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
    return [*late, *history.violations(), *wrongly_blamed(history, {})]


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines as long as the context lasts."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def restarted(whole: System) -> None:
    await whole.kill("allinone")
    await (await whole.start("allinone")).log("Master is listening on")


async def ended(client: Client, history: History, watcher: asyncio.Task[None], time_limit: float) -> list[str]:
    """Wait until all promises to clients are kept; return the missing ones after the time limit (seconds)."""

    def streamed() -> bool:
        return history.readers["stream"][-1].seq >= max(task.seq for task in history.final.values())

    def called() -> bool:
        return not history.final.keys() - (history.called or {}).keys()

    late = []
    for name, work in {
        "tasks": lambda: settled(client, history, time_limit=time_limit),
        "events": lambda: seen_all(watcher, history, time_limit=time_limit),
        "the stream": lambda: until(streamed, timeout=time_limit),
        "webhooks": lambda: until(called, timeout=time_limit),
    }.items():
        try:
            await work()
        except TimeoutError:
            late.append(f"not all of {name} came in time")
    return late


async def test_no_errors_are_reported_for_the_unbroken_product(tmp_path: Path) -> None:
    # The webhook call of a killed master is repeated after half a minute.
    assert await judged(tmp_path, None, 2, time_limit=120.0) == []


@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_product_that_is_broken_in_one_way_is_found(tmp_path: Path, name: str) -> None:
    """One of three runs must find the error, because a kill may come at a moment without effect."""
    _, expected, kills = MUTATIONS[name]
    found = list[list[str]]()
    for run in range(3):
        found.append(await judged(tmp_path / str(run), name, kills, time_limit=5.0))
        if any(re.search(expected, sentence) for sentence in found[-1]):
            return
    raise AssertionError(found)
