"""Test the SQLite backend only: restarts, limits, one process at a time."""

from __future__ import annotations

import asyncio
import time

import pytest

from safelight.errors import Error
from safelight.keyvaluestore.sqlite import SqliteStore


async def test_entries_and_revision_survive_a_restart(tmp_path):
    path = tmp_path / "store.sqlite"
    async with SqliteStore.open(path) as store:
        await store.set("k", "1", instance="a")
        await store.set("k", "2", instance="b")
        await store.delete("k", instance="a")
        before = await store.entries()
    async with SqliteStore.open(path) as store:
        assert await store.entries() == before


async def test_after_a_restart_an_entry_lives_for_its_full_time_to_live(tmp_path):
    path = tmp_path / "store.sqlite"
    async with SqliteStore.open(path) as store:
        await store.set("k", "v", instance="a", ttl=1)
    await asyncio.sleep(1.05)  # the store is away for longer than the time to live, without any event
    started = time.monotonic()
    async with SqliteStore.open(path) as store:
        page = await store.entries()
        assert [entry.value for entry in page.entries] == ["v"]
        assert (await store.watch(page.revision, wait=20)).entries == []
        assert time.monotonic() - started >= 1


async def test_a_new_store_repeats_no_revision(tmp_path):
    async with SqliteStore.open(tmp_path / "one.sqlite") as store:
        for n in range(5):
            last = await store.set("k", str(n))
    async with SqliteStore.open(tmp_path / "two.sqlite") as store:
        assert (await store.entries()).revision > last.revision
        assert (await store.watch(last.revision, wait=0)).revision != last.revision


async def test_a_file_belongs_to_one_process(tmp_path):
    async with SqliteStore.open(tmp_path / "store.sqlite"):
        with pytest.raises(Error, match="in use by another process"):
            async with SqliteStore.open(tmp_path / "store.sqlite"):
                raise AssertionError


async def test_a_file_that_is_not_a_store_is_refused(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_text("something else, long enough to be looked at " * 40)
    with pytest.raises(Error, match="cannot be opened"):
        async with SqliteStore.open(path):
            raise AssertionError


async def test_wake_ends_every_watch(tmp_path):
    async with SqliteStore.open(tmp_path / "store.sqlite") as store:
        revision = (await store.entries()).revision
        watchers = [asyncio.create_task(store.watch(revision, wait=60)) for _ in range(10)]
        await asyncio.sleep(0)
        store.wake()
        async with asyncio.timeout(25):
            pages = await asyncio.gather(*watchers)
        assert {page.revision for page in pages} == {revision}


async def test_a_cancelled_writer_does_not_affect_others(tmp_path):
    async with SqliteStore.open(tmp_path / "store.sqlite") as store:
        writes = [asyncio.create_task(store.set("k", str(n), instance=str(n))) for n in range(10)]
        await asyncio.sleep(0)
        for write in writes[::2]:
            write.cancel()
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert all(not isinstance(result, BaseException) for result in done[1::2])
        assert {str(n) for n in range(1, 10, 2)} <= {entry.instance for entry in (await store.entries()).entries}
