"""Test that an interrupted migration to a real PostgreSQL server leaves nothing, says so, and can be repeated."""

import asyncio
import signal
import sqlite3
from contextlib import asynccontextmanager, closing

import asyncpg
import pytest

from backup.test_backup import LIMIT, run
from safelight.sql import scripts
from support.programs.command import COMMAND, environment
from support.servers import postgres

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with postgres.server() as running:
        yield running


def older_database(path):
    """Write a database of the version before the newest, which is copied before it is migrated."""
    steps = scripts.migrations("safelight.db.sqlite")
    with closing(sqlite3.connect(path)) as old:
        for step in steps[:-1]:
            old.executescript(step)
        old.execute(f"PRAGMA user_version = {len(steps) - 1}")


@asynccontextmanager
async def waiting_migration(url, tmp_path):
    """Run the command until it waits for a table; yield its process and a session of the server."""
    held, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        transaction = held.transaction()
        await transaction.start()
        await held.execute("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE")
        process = await asyncio.create_subprocess_exec(
            COMMAND, "migrate", "--from", f"sqlite://{tmp_path}/old.sqlite", "--to", url,
            env=environment(TMPDIR=str(tmp_path / "tmp")), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(LIMIT):
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert process.returncode is None, await process.communicate()
        yield process, other
    finally:
        await held.close()
        await other.close()


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP", "lost connection"])
async def test_an_interrupted_migration_leaves_nothing_and_can_be_repeated(server, tmp_path, how):
    url = await server.empty()
    await run("db", "--store", url, "--migrate")
    older_database(tmp_path / "old.sqlite")
    before = (tmp_path / "old.sqlite").read_bytes()
    (tmp_path / "tmp").mkdir()
    async with waiting_migration(url, tmp_path) as (process, session):
        assert list((tmp_path / "tmp").iterdir()), "the older database must be copied before it is migrated"
        if how == "lost connection":
            await session.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
            status, words = 4, "terminating connection due to administrator command. Once that is mended, run"
        else:
            process.send_signal(signal.Signals[how])
            status, words = 128 + signal.Signals[how], "Interrupted. Nothing was copied; run the command again."
        async with asyncio.timeout(LIMIT):
            _, err = await process.communicate()
    assert words in err.decode()
    assert process.returncode == status
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "0 tasks" in await run("migrate", "--from", f"sqlite://{tmp_path}/old.sqlite", "--to", url)
    assert (tmp_path / "old.sqlite").read_bytes() == before
