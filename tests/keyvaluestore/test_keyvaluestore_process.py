"""Test the key-value store as a process that is killed, restarted and stopped."""

from __future__ import annotations

import asyncio
import signal
import time

import aiohttp
import pytest

from safelight.client.availability.instances import Several
from safelight.client.base import Connection, session
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.errors import Error
from support.programs.processes import service


async def test_it_prints_the_same_first_line_as_the_classic_store(tmp_path):
    async with service("keyvaluestore", "--data", str(tmp_path)) as process:
        url = await process.address()
        line = await process.log("is listening on")
        assert line["message"] == f"server is listening on {url.rpartition(':')[2]}"
        async with KeyValueStoreClient.connect(url) as store:
            await store.set("dbendpoint", "10.0.0.1:8001")
        await process.log("dbendpoint=10.0.0.1:8001")
        assert await process.stop() == 0


@pytest.mark.slow
async def test_acknowledged_entries_survive_kills(tmp_path):
    acknowledged: dict[str, int] = {}
    for kill_after in (5, 40, 120):
        async with service("keyvaluestore", "--data", str(tmp_path)) as process, session() as http:
            # Without retries, because the process does not come back.
            store = KeyValueStoreClient(Connection(http, Several(await process.address()), retry_for=0.0))
            for entry in (await store.entries()).entries:
                assert int(entry.value) >= acknowledged.pop(entry.key, 0)
            assert not acknowledged, "acknowledged entries are missing"
            count = 0

            async def write(key: str, store=store, process=process, kill_after=kill_after) -> None:
                nonlocal count
                for n in range(1000):
                    try:
                        await store.set(key, str(n))
                    except Error:
                        return
                    acknowledged[key] = n
                    count += 1
                    if count == kill_after:
                        process.send(signal.SIGKILL)

            await asyncio.gather(*(write(f"key{n}") for n in range(8)))
            assert await process.ended() == -signal.SIGKILL


async def test_sigterm_ends_a_watch_in_progress_with_an_answer(tmp_path):
    async with service("keyvaluestore", "--data", str(tmp_path)) as process, session() as http:
        url = await process.address()
        async with http.get(f"{url}/", headers={"Accept": "application/json"}) as answer:
            revision = (await answer.json())["revision"]
        started = time.monotonic()
        watching = asyncio.create_task(
            http.get(f"{url}/", params={"after": revision, "wait": 60}, headers={"Accept": "application/json"})
        )
        await _waits(http, url)
        assert await process.stop() == 0
        answer = await watching
        assert (await answer.json())["revision"] == revision
        assert time.monotonic() - started < 40
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"{url}/")


async def _waits(http: aiohttp.ClientSession, url: str) -> None:
    while True:
        async with http.get(f"{url}/metrics") as answer:
            if "safelight_keyvaluestore_watchers 1.0" in await answer.text():
                return


@pytest.mark.slow
async def test_a_second_process_on_the_same_data_ends_with_a_sentence(tmp_path):
    async with service("keyvaluestore", "--data", str(tmp_path)) as first:
        await first.address()
        async with service("keyvaluestore", "--data", str(tmp_path)) as second:
            await second.log("in use by another process")
            assert await second.ended() == 5
