"""Test two masters and two storages on one bucket: all give the same answers, and continue each other's uploads."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from contextlib import AsyncExitStack

import aiohttp
import pytest

from safelight import serve
from safelight.client import base
from safelight.client.access import AccessClient
from safelight.client.master import Client
from safelight.db.__main__ import Config as DbConfig
from safelight.db.__main__ import build as build_db
from safelight.errors import Error
from safelight.keyvaluestore.__main__ import Config as KeyValueStoreConfig
from safelight.keyvaluestore.__main__ import build as build_keyvaluestore
from safelight.master.__main__ import Config as MasterConfig
from safelight.master.__main__ import build as build_master
from safelight.storage.__main__ import Config as StorageConfig
from safelight.storage.__main__ import build as build_storage
from safelight.wire import Event, TaskFilter
from safelight.wire.accounts import Limits
from support.photos import photo
from support.programs.until import until
from support.tus import Tus

pytestmark = pytest.mark.slow

SPEC = {"outputs": {"small": {"format": "jpeg", "operations": [{"op": "resize", "width": 10}]}}}


@pytest.fixture
async def masters(tmp_path, bucket_url):
    async with AsyncExitStack() as stack:

        async def start(name, config, build):
            return await stack.enter_async_context(serve.running(name, config, build))

        settings = KeyValueStoreConfig(port=0, data=str(tmp_path / "keyvaluestore"))
        first = await start("keyvaluestore", settings, build_keyvaluestore)
        common = {"keyvaluestore": first.url.removeprefix("http://"), "port": 0}
        await start("db", DbConfig(data=str(tmp_path / "db"), **common), build_db)
        for number in range(2):
            config = StorageConfig(data=str(tmp_path / f"storage-{number}"), store=bucket_url, **common)
            await start("storage", config, build_storage)
        running = []
        for number in range(2):
            config = MasterConfig(data=str(tmp_path / f"master-{number}"), **common)
            running.append(await start("master", config, build_master))
        for master in running:
            for name in ("db", "storage", "master"):
                await master.discovery.wait_for(name)
            await until(lambda master=master: len(master.discovery._known["storageendpoint"]) == 2)
        yield running


@pytest.fixture
async def clients(masters):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Client.connect(master.url)) for master in masters]


async def all_changes(client: Client) -> list[Event]:
    """Read pages of events until a page is empty, as every reader does."""
    found: list[Event] = []
    last = 0
    while (page := await client.changes(last)).events:
        found += page.events
        last = page.last
    return found


async def test_recipes_tasks_events_and_figures_are_the_same(masters, clients):
    one, other = clients
    await one.save_recipe("tiny", SPEC)
    assert (await other.recipe("tiny")).name == "tiny"
    assert [found.name for found in await one.recipes()] == [found.name for found in await other.recipes()]
    task = await other.upload(photo(1), recipe="tiny", idempotency_key="once")
    assert (await one.upload(photo(1), recipe="tiny", idempotency_key="once")).id == task.id
    for number in range(2, 6):
        await clients[number % 2].upload(photo(number), recipe="tiny")
    assert await all_changes(one) == await all_changes(other)
    assert await one.count(TaskFilter()) == await other.count(TaskFilter())
    async with base.session() as http:

        async def created(url: str) -> int:
            async with http.get(f"{url}/last-hour") as answer:
                return sum(minute["created"] for minute in (await answer.json())["minutes"])

        for master in masters:

            async def counted(master=master):
                return await created(master.url) == 5

            await until(counted)
        for master in masters:
            async with http.get(f"{master.url}/services") as answer:
                found = [(seen["name"], seen["ready"]) for seen in await answer.json()]
            assert sorted(found) == [
                ("db", True), ("keyvaluestore", True), ("master", True), ("master", True),
                ("storage", True), ("storage", True),
            ]  # fmt: skip
    await other.delete_recipe("tiny")

    async def is_gone():
        try:
            await one.recipe("tiny")
        except Error:
            return True
        return False

    await until(is_gone)  # a master caches recipes for a second


async def test_a_limit_on_uploads_at_once_holds_for_both_masters(masters, clients):
    async with AccessClient.connect(masters[0].url) as access:
        await access.change_tenant("default", name="", weight=1.0, limits=Limits(uploads=1))
    release, begun = asyncio.Event(), asyncio.Event()
    data = photo(8)

    async def slow():
        yield data[:100]
        begun.set()
        await release.wait()
        yield data[100:]

    first = asyncio.create_task(clients[0].upload(slow, filename="slow.png"))
    await begun.wait()
    async with base.session() as http:

        async def status(number: int) -> int:
            form = aiohttp.FormData()
            form.add_field("image", photo(number), filename="a.png")
            async with http.post(f"{masters[1].url}/task", data=form) as answer:
                return answer.status

        numbers = itertools.count(9)

        async def is_refused() -> bool:
            return await status(next(numbers)) == 429

        await until(is_refused)  # the first master has to see the head of the slow upload
        release.set()
        await first

        async def is_taken() -> bool:
            return await status(next(numbers)) == 200

        await until(is_taken)


async def test_an_upload_continues_at_the_other_master(masters, clients):
    data = photo(7, width=700)
    async with base.session() as http:
        ways = [Tus(http, master.url) for master in masters]
        place = await ways[0].opened(len(data), filename="a.png", recipe="web")
        path = "/" + place.partition("://")[2].partition("/")[2] if "://" in place else place
        third = len(data) // 3
        for number, (start, end) in enumerate(((0, third), (third, 2 * third), (2 * third, len(data)))):
            way = ways[number % 2]
            assert await way.offset(path) == start
            assert (await way.patch(path, start, data[start:end])).status in (200, 204)
    [task] = (await clients[1].tasks()).tasks
    assert task.input.digest == hashlib.sha256(data).hexdigest()
    async with asyncio.timeout(60), clients[0].original(task.id) as answer:
        assert await answer.read() == data
