"""Test the copy of the SQLite file: calls continue meanwhile, and the copy has the state of one moment."""

import asyncio
import sqlite3

import pytest

from safelight.db.sqlite import SqliteStore
from safelight.errors import Code, Error
from support.tasks import new_task

MANY = 8_000
LONG = "n" * 3000
"""How many tasks make a file of about 50 MB, which is copied in about fifty steps."""


async def fill(store):
    for _ in range(MANY // 500):
        await store.create([new_task(filename=LONG) for _ in range(500)])


@pytest.mark.slow
async def test_calls_continue_during_a_copy_of_one_moment(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        await fill(store)
        copying = asyncio.create_task(store.snapshot(tmp_path / "copy.sqlite"))
        during = 0
        while not copying.done():
            await store.create([new_task(), new_task()])
            during += 1
        await copying
        await store.create([new_task()])
    assert during >= 3, "calls must not wait for the whole copy"
    copy = sqlite3.connect(tmp_path / "copy.sqlite")
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    count, last = copy.execute("SELECT count(*), max(n) FROM task").fetchone()
    assert MANY <= count == last <= MANY + 2 * during, "no task may be missing"
    assert count % 2 == 0, "each transaction must be copied completely or not at all"
    assert copy.execute("SELECT count(*), max(seq) FROM event").fetchone() == (count, count)
    copy.close()


async def test_a_store_that_closes_ends_a_copy(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        await fill(store)
        copying = [asyncio.create_task(store.snapshot(tmp_path / f"{n}.sqlite")) for n in range(20)]
        await asyncio.sleep(0)
    ended = await asyncio.gather(*copying, return_exceptions=True)
    assert isinstance(ended[-1], Error)
    assert ended[-1].code is Code.UNAVAILABLE
    with pytest.raises(Error, match="stopping"):
        await store.snapshot(tmp_path / "late.sqlite")


async def test_a_copy_that_cannot_be_written_affects_nothing_else(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        with pytest.raises(Error) as caught:
            await store.snapshot(tmp_path / "no such directory" / "copy.sqlite")
        assert caught.value.code is Code.UNAVAILABLE
        assert (await store.create([new_task()]))[0].id
