"""Test that db says that it is not ready while PostgreSQL cannot be reached, and why."""

from __future__ import annotations

import asyncio
import signal
from functools import partial

import pytest

from db.instances.test_db_setups import run
from safelight import serve
from safelight.db.__main__ import Config, build
from support.programs.ports import free_port
from support.programs.processes import service
from support.readiness import away_and_back
from support.servers import postgres

pytestmark = pytest.mark.slow


async def test_db_is_not_ready_while_postgresql_is_away(tmp_path):
    with postgres.server(fsync=True) as server:
        config = Config(port=0, data=str(tmp_path), store=await server.empty())
        async with serve.running("db", config, build) as db:
            said = await away_and_back(db.url, "postgresql", stop=server.stop, start=server.start)
    assert "connection refused" in said


async def test_db_is_not_ready_while_postgresql_is_read_only(tmp_path):
    """Providers make a database read-only whose disk is nearly full."""
    with postgres.server(fsync=True) as server:
        config = Config(port=0, data=str(tmp_path), store=await server.empty())

        def change(sentence):
            asyncio.run(run(server.url(), f"ALTER SYSTEM {sentence}", "SELECT pg_reload_conf()"))

        stop = partial(change, "SET default_transaction_read_only = on")
        start = partial(change, "RESET default_transaction_read_only")
        async with serve.running("db", config, build) as db:
            said = await away_and_back(db.url, "postgresql", stop=stop, start=start)
    assert "The database is read-only: " in said


async def test_db_is_not_ready_while_its_tables_are_gone(tmp_path):
    with postgres.server(fsync=True) as server:
        config = Config(port=0, data=str(tmp_path), store=await server.empty())

        def change(sentence):
            asyncio.run(run(config.store, sentence))

        stop = partial(change, "ALTER TABLE ledger RENAME TO lost")
        start = partial(change, "ALTER TABLE lost RENAME TO ledger")
        async with serve.running("db", config, build) as db:
            said = await away_and_back(db.url, "postgresql", stop=stop, start=start)
    assert "The tables of the database are gone." in said


async def test_db_waits_for_postgresql_at_its_start(tmp_path):
    with postgres.server(fsync=True) as server:
        url = await server.empty()
        server.stop("fast")
        async with service("db", "--data", str(tmp_path), "--store", url) as db:
            line = await db.log("Waiting for the database.")
            assert "connection refused" in line["message"]
            server.start()
            await db.address()
            assert await db.stop() == 0


async def test_a_wait_for_postgresql_ends_cleanly_at_a_signal(tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        store = f"postgresql://safelight@127.0.0.1:{free_port()}/x"
        async with service("db", "--data", str(tmp_path), "--store", store) as db:
            await db.log("Waiting for the database.")
            assert await db.stop(number) == 0
            assert db.lines[-1]["message"] == "Stopped before the start was complete"


async def test_db_does_not_wait_for_what_does_not_pass(tmp_path, database):
    async with service("db", "--data", str(tmp_path), "--store", f"{database}-missing") as db:
        assert "does not exist" in (await db.log("cannot start"))["message"]
        assert await db.ended() == 4
