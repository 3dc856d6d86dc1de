"""Test faults of the databases' files: a full disk, an unmounted disk, deleted files."""

from __future__ import annotations

import errno
import resource
import shutil
import signal
import sqlite3
from collections.abc import Awaitable
from contextlib import closing

import pytest

from faults.power import Disk, mount, mounted, unmount_in_use
from faults.shim import Faults
from safelight.client.db import DbClient
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.db.sqlite import SqliteStore
from safelight.errors import Code, Error
from safelight.sql import scripts, sqlite
from safelight.wire import TaskQuery
from support.programs.processes import service
from support.tasks import new_task

pytestmark = pytest.mark.slow

PACKAGE = "safelight.db.sqlite"


async def test_a_full_disk_during_a_migration_leaves_the_database_as_it_was(tmp_path):
    """db refuses to start with a message, and continues when there is space."""
    path, steps = tmp_path / "db" / "tasks.sqlite", scripts.migrations(PACKAGE)
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        for script in steps[:1]:
            old.executescript(script)
        old.execute("PRAGMA user_version = 1")
        (known,) = old.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
    faults = Faults(tmp_path, "db")
    faults.apply(write_error=errno.ENOSPC, only="tasks[.]sqlite")
    async with service("db", "--data", str(path.parent), env=faults.environment) as program:
        assert await program.ended() == 4
        assert any("full" in line["message"] for line in program.lines), program.lines
    with closing(sqlite3.connect(path)) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert kept.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    faults.apply(write_error=0)
    async with (
        service("db", "--data", str(path.parent), env=faults.environment) as program,
        DbClient.connect(await program.address()) as db,
    ):
        assert (await db.create([new_task()]))[0].id
        assert await program.stop() == 0
    with closing(sqlite3.connect(path)) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (len(steps),)
        assert now.execute("SELECT value FROM meta WHERE name = 'id'").fetchone() == (known,)


def test_a_migration_that_a_full_disk_interrupts_leaves_nothing_behind(tmp_path):
    """The allowed file size grows, so each attempt ends at another statement."""
    path, refused = tmp_path / "tasks.sqlite", 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in range(4096, 4 << 20, 4096):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            made = sqlite.connect(path, PACKAGE)
        except Error as error:
            assert error.code is Code.UNAVAILABLE
            refused += 1
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    else:
        pytest.fail("it never ends, however much room there is")
    assert refused > 5
    sqlite.check(made, path)
    with closing(sqlite.connect(tmp_path / "model.sqlite", PACKAGE)) as model:
        schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
        assert made.execute(schema).fetchall() == model.execute(schema).fetchall()
    made.close()


def test_a_migration_that_fails_at_a_later_step_leaves_the_version_and_the_tables_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "tasks.sqlite"
    steps = ["CREATE TABLE a (x);", "CREATE TABLE b (x);", "ALTER TABLE missing ADD COLUMN y;"]
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"{steps[0]} PRAGMA user_version = 1;")
    monkeypatch.setattr(scripts, "migrations", lambda _package: steps)
    with pytest.raises(Error, match="stays as it was: no such table: missing") as refused:
        sqlite.connect(path, PACKAGE)
    assert refused.value.code is Code.UNAVAILABLE
    with closing(sqlite3.connect(path)) as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert kept.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_write_ahead_log_that_is_deleted_costs_at_most_what_it_held(tmp_path, killed):
    """A stop writes all data to the database; after a kill the remaining data is consistent, and readers are
    informed."""
    data = tmp_path / "db"
    async with SqliteStore.open(data / "tasks.sqlite") as store:
        await store.create([new_task() for _ in range(5)])
    async with (
        service("db", "--data", str(data)) as program,
        DbClient.connect(await program.address()) as db,
    ):
        await db.create([new_task() for _ in range(5)])
        seen = await db.events(0)
        (data / "tasks.sqlite-wal").unlink()
        program.send(signal.SIGKILL if killed else signal.SIGTERM)
        await program.ended()
    async with service("db", "--data", str(data)) as program, DbClient.connect(await program.address()) as db:
        assert len((await db.find(TaskQuery())).tasks) == (5 if killed else 10)
        page = await db.events(seen.last, known=seen.db)
        assert page.restored is killed
        assert len(await db.create([new_task()])) == 1


async def test_a_write_ahead_log_that_is_deleted_costs_nothing_once_there_is_a_commit(tmp_path):
    """db opens its file again, which writes into it what only the deleted log had."""
    data = tmp_path / "db"
    async with service("db", "--data", str(data)) as program, DbClient.connect(await program.address()) as db:
        await db.create([new_task() for _ in range(5)])
        (data / "tasks.sqlite-wal").unlink()
        await db.create([new_task() for _ in range(5)])
        program.send(signal.SIGKILL)
        await program.ended()
    async with service("db", "--data", str(data)) as program, DbClient.connect(await program.address()) as db:
        assert len((await db.find(TaskQuery())).tasks) == 10


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.code is Code.UNAVAILABLE
    assert "is not the file that was opened" in caught.value.detail


async def test_a_database_whose_disk_is_unmounted_acknowledges_nothing_until_it_is_mounted(tmp_path):
    Disk(tmp_path)
    image, data = tmp_path / "disk.img", tmp_path / "db"
    with mounted(image, data):
        async with service("db", "--data", str(data)) as program, DbClient.connect(await program.address()) as db:
            await db.create([new_task()])
            unmount_in_use(data)
            await refused(db.create([new_task()]))
            assert len((await db.find(TaskQuery())).tasks) == 1
            assert not list(data.iterdir())
            mount(image, data)
            await db.create([new_task()])
            program.send(signal.SIGKILL)
            await program.ended()
        async with service("db", "--data", str(data)) as program, DbClient.connect(await program.address()) as db:
            assert len((await db.find(TaskQuery())).tasks) == 2


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_database_that_is_moved_away_or_replaced_acknowledges_nothing(tmp_path, replaced):
    """What it has can be saved, and it goes on where the file is moved back."""
    path, away, saved = tmp_path / "tasks.sqlite", tmp_path / "away", tmp_path / "saved.sqlite"
    async with SqliteStore.open(path) as store:
        await store.create([new_task()])
        path.rename(away)
        if replaced:
            shutil.copy(away, path)
        await refused(store.create([new_task()]))
        assert len((await store.find(TaskQuery())).tasks) == 1
        await store.snapshot(saved)
        away.replace(path)
        await store.create([new_task()])
        assert len((await store.find(TaskQuery())).tasks) == 2
    async with SqliteStore.open(saved) as store:
        assert len((await store.find(TaskQuery())).tasks) == 1


async def test_a_key_value_store_whose_file_is_gone_stores_nothing_until_it_is_back(tmp_path):
    data = tmp_path / "data"
    async with (
        service("keyvaluestore", "--data", str(data)) as program,
        KeyValueStoreClient.connect(await program.address()) as store,
    ):
        await store.set("key", "value")
        data.rename(tmp_path / "away")
        data.mkdir()
        await refused(store.set("key", "other"))
        assert await store.get("key") == "value"
        data.rmdir()
        (tmp_path / "away").rename(data)
        await store.set("key", "other")
        program.send(signal.SIGKILL)
        await program.ended()
    async with (
        service("keyvaluestore", "--data", str(data)) as program,
        KeyValueStoreClient.connect(await program.address()) as store,
    ):
        assert await store.get("key") == "other"
