"""db as a process that is killed."""

from __future__ import annotations

import asyncio
import signal

import pytest

from safelight.client.db import DbClient
from safelight.errors import Error
from safelight.wire import State
from support.processes import service
from support.tasks import finished, new_task, request


@pytest.mark.slow
async def test_what_was_acknowledged_survives_kills(tmp_path):
    created: dict[str, str] = {}
    done: set[str] = set()
    last = 0
    for round_ in range(3):
        async with service("db", "--data", str(tmp_path)) as db_process:
            url = await db_process.address()
            enough = asyncio.Event()

            async def load(name: str, url=url, enough=enough, round_=round_) -> None:
                async with DbClient.connect(url) as db:
                    db._connection.retry_for = 0.0
                    for number in range(100_000):
                        keys = [f"{round_}-{name}-{number}-{place}" for place in range(5)]
                        made = await db.create([new_task(idempotency_key=key) for key in keys])
                        created.update({task.id: key for task, key in zip(made, keys, strict=True)})
                        leases = await db.lease(request(name, n=3))
                        for answer in await db.settle([finished(lease.id) for lease in leases]):
                            if answer.state is State.FINISHED:
                                done.add(answer.lease.rsplit("-", 2)[0])
                        if number == 8:
                            enough.set()

            async with DbClient.connect(url) as db:
                for name, key in list(created.items())[-40:]:
                    task = await db.get(name)
                    assert task.state is State.FINISHED or name not in done
                    (again,) = await db.create([new_task(idempotency_key=key).evolve(input=task.input)])
                    assert again.id == name
                for name in list(done)[-40:]:
                    assert (await db.get(name)).state is State.FINISHED
                seen = []
                while (page := await db.events(last)).events:
                    seen += [event.seq for event in page.events]
                    last = page.last
                assert seen == sorted(set(seen))
                summary = await db.summary()
                assert sum(summary.tasks.values()) >= len(created)
                assert summary.tasks["finished"] >= len(done)
            loads = [asyncio.create_task(load(f"w{number}")) for number in range(6)]
            await asyncio.wait_for(enough.wait(), 60)
            db_process.send(signal.SIGKILL)
            results = await asyncio.gather(*loads, return_exceptions=True)
            assert all(isinstance(result, Error) for result in results), results
    assert len(created) > 100


async def test_a_second_process_on_the_same_data_says_so(tmp_path):
    async with service("db", "--data", str(tmp_path)) as first:
        await first.address()
        async with service("db", "--data", str(tmp_path)) as second:
            assert await second.ended() != 0
            assert any("in use by another process" in line["message"] for line in second.lines)
        assert await first.stop() == 0
