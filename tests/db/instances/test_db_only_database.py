"""Test that two databases are never registered at one key-value store."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack

import pytest

from safelight import serve
from safelight.client.base import session
from safelight.client.db import DbClient
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.db.__main__ import Config, build
from safelight.keyvaluestore.__main__ import Config as KeyValueStoreConfig
from safelight.keyvaluestore.__main__ import build as build_keyvaluestore
from safelight.wire import StoreClaim
from support.programs.until import until

TIMEOUT = 60.0


@pytest.fixture
async def entries(tmp_path):
    """Run a key-value store, and return a client of it."""
    config = KeyValueStoreConfig(port=0, data=str(tmp_path / "keyvaluestore"))
    async with (
        serve.running("keyvaluestore", config, build_keyvaluestore) as store,
        KeyValueStoreClient.connect(store.url) as client,
    ):
        client.address = store.url.removeprefix("http://")
        yield client


def running(entries, data):
    """Run db with a file of its own; it registers again every second."""
    config = Config(keyvaluestore=entries.address, port=0, data=str(data), registration_ttl=3.0)
    return serve.running("db", config, build)


async def registered(entries, *databases):
    """Wait until exactly these instances of db are registered."""
    wanted = sorted(database.url.removeprefix("http://") for database in databases)

    async def are() -> bool:
        return sorted(entry.value for entry in (await entries.entries("dbendpoint")).entries) == wanted

    await until(are, timeout=TIMEOUT)


async def test_a_second_database_waits_until_the_first_has_ended(entries, tmp_path, caplog):
    async with asyncio.timeout(TIMEOUT), AsyncExitStack() as first:
        one = await first.enter_async_context(running(entries, tmp_path / "one"))
        await registered(entries, one)
        async with running(entries, tmp_path / "two") as two, session() as http:
            await until(lambda: "Another database is registered" in caplog.text, timeout=TIMEOUT)
            async with http.get(f"{two.url}/readyz") as answer:
                document = await answer.json()
            assert (answer.status, document["waiting_for"]) == (503, ["registration"])
            assert one.url.removeprefix("http://") in document["detail"]
            await registered(entries, one)
            await first.aclose()
            await registered(entries, two)
            async with http.get(f"{two.url}/readyz", params={"wait": TIMEOUT}) as answer:
                assert answer.status == 200


async def test_a_database_that_knows_a_store_replaces_a_new_one(entries, tmp_path):
    """An empty database was started by mistake while the disk of the real one was away."""
    async with asyncio.timeout(TIMEOUT):
        async with running(entries, tmp_path / "real") as real, DbClient.connect(real.url) as client:
            await client.claim_store(StoreClaim(id=secrets.token_hex(16)))
            await registered(entries, real)
        async with running(entries, tmp_path / "new") as new:
            await registered(entries, new)
            async with running(entries, tmp_path / "real") as real:
                await registered(entries, real)
                assert real.registered != new.registered
