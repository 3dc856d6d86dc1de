"""Test that a lack of memory after a commit, or while it is answered, leaves no caller without an answer."""

from __future__ import annotations

import asyncio

import pytest

from safelight.db.sqlite import SqliteStore
from safelight.db.sqlite.database import Database
from support.tasks import new_task


class _Once:
    """Have no memory, once."""

    def __init__(self) -> None:
        self.due = False

    def fail(self, *_ignored: object) -> None:
        if self.due:
            self.due = False
            raise MemoryError


async def test_an_observer_that_fails_keeps_no_caller_from_its_answer(backend, caplog):
    once = _Once()
    async with backend.open(observe=once.fail) as store:
        once.due = True
        async with asyncio.timeout(30):
            (made,) = await store.create([new_task()])
        assert not once.due
        assert (await store.get(made.id)).id == made.id
    assert any("after a commit" in record.message for record in caplog.records)


async def test_a_caller_that_cannot_be_told_keeps_no_other_from_its_answer(backend):
    once = _Once()
    async with backend.open() as store:
        (made,) = await store.create([new_task()])
        once.due = True
        submit = store._database.submit
        gone = submit(lambda transaction: transaction.task(made.id, None), lost=once.fail)
        read = asyncio.create_task(store.get(made.id))
        gone.cancel()
        async with asyncio.timeout(30):
            await read
            await store.create([new_task()])
        assert not once.due


@pytest.mark.parametrize("method", ["_commit", "call_soon_threadsafe"])
async def test_the_thread_continues_after_any_failure(tmp_path, monkeypatch, method):
    once = _Once()
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        if method == "_commit":
            real = Database._commit
            monkeypatch.setattr(Database, "_commit", lambda self, calls: once.fail() or real(self, calls))
        else:
            loop = asyncio.get_running_loop()
            call = loop.call_soon_threadsafe
            monkeypatch.setattr(
                loop, "call_soon_threadsafe", lambda *given, **named: once.fail() or call(*given, **named)
            )
        once.due = True
        async with asyncio.timeout(30):
            try:
                await store.create([new_task()])
            except MemoryError:
                assert method == "_commit"
            await store.create([new_task()])
        assert not once.due
