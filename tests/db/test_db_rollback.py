"""Test a failed commit with a failed rollback: no state remains that exists only in memory, and nothing spins."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3

import asyncpg
import pytest

from safelight.db.postgres.sessions.connection import Connection as PostgresConnection
from safelight.db.sqlite.connection import Connection as SqliteConnection
from safelight.errors import Error
from safelight.wire import State, TaskQuery
from support.tasks import finished, new_task, request


class Broken:
    """Make the next commit fail, and the rollback after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits = self.rollbacks = 0
        self.begun = itertools.count()
        """How many writing transactions have begun."""
        real = {name: getattr(SqliteConnection, name) for name in ("begin", "commit", "rollback")}
        script = PostgresConnection.script

        def begin(connection: SqliteConnection, *, durable: bool = True) -> None:
            next(self.begun)
            real["begin"](connection, durable=durable)

        def commit(connection: SqliteConnection) -> None:
            self._fail("commits", sqlite3.OperationalError("disk I/O error"))
            real["commit"](connection)

        def rollback(connection: SqliteConnection) -> None:
            self._fail("rollbacks", sqlite3.OperationalError("disk I/O error"))
            real["rollback"](connection)

        def run(connection: PostgresConnection, text: str) -> None:
            if text == "COMMIT" and self.commits:
                wait_for_disk = asyncpg.DiskFullError("could not extend file")
                self._fail("commits", wait_for_disk)
            if text == "ROLLBACK" and not self.commits:
                self._fail("rollbacks", asyncpg.InterfaceError("connection is closed"))
            if text.startswith("BEGIN") and "READ ONLY" not in text:
                next(self.begun)
            script(connection, text)

        for name, patched in (("begin", begin), ("commit", commit), ("rollback", rollback)):
            monkeypatch.setattr(SqliteConnection, name, patched)
        monkeypatch.setattr(PostgresConnection, "script", run)

    def _fail(self, kind: str, error: Exception) -> None:
        left = getattr(self, kind)
        if left:
            setattr(self, kind, left - 1)
            raise error


async def test_a_failed_rollback_leaves_no_phantom_and_no_spinning_worker(backend, monkeypatch):
    broken = Broken(monkeypatch)
    async with backend.open() as store:
        (kept,) = await store.create([new_task("kept", idempotency_key="kept")])
        (lease,) = await store.lease(request("w"))
        broken.commits = broken.rollbacks = 1
        try:
            await store.create([new_task("phantom", idempotency_key="phantom")])
            acknowledged = True  # the call may succeed by a second attempt
        except Error:
            acknowledged = False
        assert (broken.commits, broken.rollbacks) == (0, 0), "the commit and the rollback must have failed"
        found = (await store.find(TaskQuery(limit=10))).tasks
        assert {task.id for task in found} == {kept.id} | {task.id for task in found if acknowledged and task != kept}
        waiting = [task for task in found if task.state is State.WAITING]
        assert len(waiting) == int(acknowledged)
        assert (await store.summary()).tasks.get("waiting", 0) == len(waiting)
        for _ in waiting:
            assert await store.lease(request("other"))
        # A task that was rolled back does not wake a waiting worker again and again.
        before = next(broken.begun)
        assert await store.lease(request("idle", wait=1.0)) == []
        assert next(broken.begun) - before < 50
        (settled,) = await store.settle([finished(lease.id)])
        assert settled.state is State.FINISHED
        await store.create([new_task("after", idempotency_key="after")])
        async with asyncio.timeout(30):
            assert await store.lease(request("other", wait=20.0))
        events = (await store.events(0)).events
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
