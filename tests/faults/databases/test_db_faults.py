"""Test faults of db's machine: they count as no worker's death, and a wrong clock deletes nothing."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from faults.shim import Faults
from safelight.client.db import DbClient
from safelight.errors import Error
from safelight.wire import Heartbeat, Lease, State, TaskQuery, WorkerInfo
from support.programs.processes import Program, service
from support.tasks import finished, new_task, request

pytestmark = pytest.mark.slow

DAY = 86400.0
LEASE = 2.0


@asynccontextmanager
async def db(data: Path, faults: Faults) -> AsyncIterator[tuple[Program, DbClient]]:
    async with service("db", "--data", str(data), env=faults.environment) as program:
        async with DbClient.connect(await program.address()) as client:
            yield program, client
        await program.stop()


async def beating(client: DbClient, lease: Lease, worker: WorkerInfo) -> None:
    """Extend a lease as often as a worker does, until cancelled."""
    while True:
        try:
            async with asyncio.timeout(LEASE / 3):
                await client.heartbeat(Heartbeat(worker=worker, holding=[lease.id], seconds=LEASE))
        except (Error, TimeoutError):
            pass
        await asyncio.sleep(LEASE / 6)


async def kinds(client: DbClient) -> list[str]:
    return [event.kind for event in (await client.events(0)).events]


async def test_a_clock_that_is_weeks_ahead_for_a_minute_deletes_nothing(tmp_path):
    """This also holds over a restart, when only stored times show that the clock has jumped."""
    faults = Faults(tmp_path, "db")
    async with db(tmp_path / "data", faults) as (_, client):
        made = await client.create([new_task() for _ in range(10)])
        for lease in await client.lease(request(n=10)):
            await client.settle([finished(lease.id)])
    faults.apply(clock_offset=32 * DAY)
    async with db(tmp_path / "data", faults) as (program, client):
        await program.log("32.0 days ahead")
        fresh = (await client.create([new_task()]))[0]
        faults.apply(clock_offset=0.0)
        await client.create([new_task()])
        found = {task.id for task in (await client.find(TaskQuery(limit=100))).tasks}
        assert {task.id for task in made} < found
        assert fresh.id in found
    assert "deleted" not in await _kinds_of(tmp_path, faults)


async def _kinds_of(data: Path, faults: Faults) -> list[str]:
    async with db(data / "data", faults) as (_, client):
        return await kinds(client)


async def test_a_clock_that_is_set_back_does_not_extend_a_dead_workers_lease(tmp_path):
    faults = Faults(tmp_path, "db")
    async with db(tmp_path / "data", faults) as (_, client):
        await client.create([new_task()])
        await client.lease(request("dead", seconds=1.0))
        faults.apply(clock_offset=-3600.0)
        async with asyncio.timeout(60):
            (again,) = await client.lease(request("alive", wait=15.0))
        assert again.attempt == 2


@pytest.mark.parametrize("fault", ["slow flushes", "failing flushes", "failing writes", "suspended"])
async def test_a_stall_of_db_is_not_a_death(tmp_path, fault):
    faults = Faults(tmp_path, "db")
    async with db(tmp_path / "data", faults) as (program, client):
        await client.create([new_task()])
        (lease,) = await client.lease(request("w", seconds=LEASE))
        heart = asyncio.create_task(beating(client, lease, request("w").worker))
        await asyncio.sleep(0.2)
        match fault:
            case "slow flushes":
                faults.apply(flush_delay=LEASE + 1)
            case "failing flushes":
                faults.apply(flush_error=errno.EIO)
            case "failing writes":
                faults.apply(write_error=errno.EIO, flush_error=errno.EIO, only="tasks.sqlite")
            case "suspended":
                program.send(signal.SIGSTOP)
        await asyncio.sleep(2 * LEASE + 2)
        faults.apply(flush_delay=0.0, flush_error=0, write_error=0)
        program.send(signal.SIGCONT)
        async with asyncio.timeout(30):
            while True:
                try:
                    await client.create([new_task()])
                    break
                except Error:
                    continue
        await asyncio.sleep(1.5 * LEASE)  # longer than the lease, which must have been extended
        heart.cancel()
        assert not {"expired", "died", "excused"} & set(await kinds(client))
        (settled,) = await client.settle([finished(lease.id)])
        assert settled.state is State.FINISHED
        # Failed calls have left nothing that exists only in memory.
        summary, found = await client.summary(), (await client.find(TaskQuery(limit=1000))).tasks
        assert summary.tasks["waiting"] == sum(task.state is State.WAITING for task in found)
        assert [event.seq for event in (await client.events(0)).events] == list(range(1, summary.seq + 1))


async def test_a_dead_worker_is_noticed_after_a_stall_as_well(tmp_path):
    faults = Faults(tmp_path, "db")
    async with db(tmp_path / "data", faults) as (program, client):
        await client.create([new_task()])
        await client.lease(request("dead", seconds=1.0))
        program.send(signal.SIGSTOP)
        await asyncio.sleep(2.0)
        program.send(signal.SIGCONT)
        async with asyncio.timeout(60):
            (again,) = await client.lease(request("alive", wait=15.0))
        assert again.attempt == 2
