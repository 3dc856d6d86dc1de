"""Test db as a process that is killed."""

from __future__ import annotations

import asyncio
import itertools
import signal

import pytest

from safelight.client.db import DbClient
from safelight.errors import Error
from safelight.wire import State
from support.programs.processes import service
from support.tasks import finished, new_task, request


class Acknowledged:
    """Record what db has acknowledged: tasks with their idempotency keys, and the finished ones."""

    def __init__(self) -> None:
        self.created: dict[str, str] = {}
        self.done: set[str] = set()
        self._last = 0

    async def add(self, url: str, name: str, enough: asyncio.Event) -> None:
        """Create, lease and settle tasks until db has stopped."""
        async with DbClient.connect(url) as db:
            db._connection.retry_for = 0.0
            for number in itertools.count():
                keys = [f"{name}-{number}-{place}" for place in range(5)]
                made = await db.create([new_task(idempotency_key=key) for key in keys])
                self.created.update({task.id: key for task, key in zip(made, keys, strict=True)})
                leases = await db.lease(request(name, n=3))
                for answer in await db.settle([finished(lease.id) for lease in leases]):
                    if answer.state is State.FINISHED:
                        self.done.add(answer.lease.rsplit("-", 2)[0])
                if number == 8:
                    enough.set()

    async def check(self, db: DbClient) -> None:
        """Assert that all recorded tasks still exist, and that no event number is repeated."""
        for name, key in list(self.created.items())[-40:]:
            task = await db.get(name)
            assert task.state is State.FINISHED or name not in self.done
            (again,) = await db.create([new_task(idempotency_key=key).evolve(input=task.input)])
            assert again.id == name
        for name in list(self.done)[-40:]:
            assert (await db.get(name)).state is State.FINISHED
        seen = []
        while (page := await db.events(self._last)).events:
            seen += [event.seq for event in page.events]
            self._last = page.last
        assert seen == sorted(set(seen))
        summary = await db.summary()
        assert sum(summary.tasks.values()) >= len(self.created)
        assert summary.tasks["finished"] >= len(self.done)


@pytest.mark.slow
async def test_what_was_acknowledged_survives_kills(tmp_path):
    known = Acknowledged()
    for round_ in range(3):
        async with service("db", "--data", str(tmp_path)) as db_process:
            url = await db_process.address()
            async with DbClient.connect(url) as db:
                await known.check(db)
            enough = asyncio.Event()
            loads = [asyncio.create_task(known.add(url, f"{round_}-w{number}", enough)) for number in range(6)]
            await asyncio.wait_for(enough.wait(), 60)
            db_process.send(signal.SIGKILL)
            results = await asyncio.gather(*loads, return_exceptions=True)
            assert all(isinstance(result, Error) for result in results), results
    assert len(known.created) > 100


@pytest.mark.slow
async def test_a_second_process_on_the_same_data_is_refused(tmp_path):
    async with service("db", "--data", str(tmp_path)) as first:
        await first.address()
        async with service("db", "--data", str(tmp_path)) as second:
            assert await second.ended() != 0
            assert any("in use by another process" in line["message"] for line in second.lines)
        assert await first.stop() == 0
