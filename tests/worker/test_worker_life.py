"""Test workers that stop or freeze, whose services are away, and whose decoders die."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from safelight.client.master import Client
from safelight.wire import State, Summary, Task, WorkerInfo
from support.leases import take
from support.photos import photo
from support.programs.pids import children, gone
from support.programs.system import System
from worker.conftest import Start
from worker.work import LONG, begun, happened, kinds, leased, metrics, slow

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def died_of(client: Client, task: Task) -> str:
    """Wait for a death of a task; return the code of its reason."""
    after = 0
    while True:
        page = await client.changes(after, wait=20.0, task=task.id)
        for event in page.events:
            if event.kind == "died":
                assert event.failure is not None
                return event.failure.code
        assert page.events or page.last != after, "no death"
        after = page.last


async def test_at_sigterm_it_finishes_what_decodes_and_hands_back_the_rest(client: Client, start: Start) -> None:
    worker = await start()
    tasks = [await slow(client, 100)]
    await begun(worker, tasks[0])
    tasks += [await slow(client, number) for number in (101, 102)]
    await leased(client, tasks[1])
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    first, *rest = [await client.task(task.id) for task in tasks]
    assert first.state is State.FINISHED
    for task in rest:
        assert task.state is State.WAITING
        assert (task.errors, task.deaths) == (0, 0)
    await start()
    for task in rest:
        assert (await client.wait(task.id, timeout=30)).state is State.FINISHED


async def test_tasks_that_take_longer_than_the_drain_are_returned(client: Client, start: Start) -> None:
    worker = await start("--drain", "0.2")
    task = await slow(client, 110, LONG)
    await begun(worker, task)
    told = time.monotonic()
    assert await worker.stop() == 0
    assert time.monotonic() - told < 7
    assert await kinds(client, task) == ["created", "leased", "returned"]
    await client.cancel(task.id)


async def test_unbegun_tasks_of_a_stopped_worker_are_leased_within_100_ms(client: Client, start: Start) -> None:
    """The time counts from the signal, also while the worker waits for tasks; the best of several runs counts."""
    other = WorkerInfo(id="other")
    times: list[float] = []
    while len(times) < 10 and not (times and min(times) < 0.1):
        worker = await start("--slots", "2", "--drain", "0.2")
        await worker.log("Nothing to do at the moment")
        for decoder in children(worker.process.pid):
            os.kill(decoder, signal.SIGSTOP)  # so that its photo takes long
        tasks = [await client.upload(photo(10 * len(times) + number)) for number in (111, 112, 113)]
        for task in tasks[:2]:
            await begun(worker, task)
        await leased(client, tasks[2])
        waiting = asyncio.create_task(take(client, wait=30.0, worker=other))
        await asyncio.sleep(0.3)  # until the other worker waits
        told = time.monotonic()
        worker.send(signal.SIGTERM)
        assert [lease.task for lease in await waiting] == [tasks[2].id]
        times.append(time.monotonic() - told)
        assert await worker.ended() == 0
        for task in tasks:
            await client.cancel(task.id)
    assert min(times) < 0.1, times


async def test_an_idle_worker_leaves_at_once_and_its_long_poll_with_it(client: Client, start: Start) -> None:
    worker = await start()
    await worker.log("Nothing to do at the moment")
    told = time.monotonic()
    assert await worker.stop(signal.SIGINT) == 0
    assert time.monotonic() - told < 15
    assert [line["message"] for line in worker.lines].count("Nothing to do at the moment") == 1
    # No request for leases of the stopped worker is left that could take a task.
    task = await client.upload(photo(120))
    assert (await client.task(task.id)).state is State.WAITING
    await client.cancel(task.id)


async def test_a_worker_frozen_past_its_lease_is_refused_and_goes_on(client: Client, start: Start) -> None:
    frozen = await start("--lease-duration", "2")
    task = await slow(client, 130)
    await begun(frozen, task)
    frozen.send(signal.SIGSTOP)
    other = await start("--lease-duration", "2")
    done = await client.wait(task.id, timeout=30)
    await other.stop()
    frozen.send(signal.SIGCONT)
    await frozen.log(lambda line: "Lost the lease" in line["message"] and line.get("task") == task.id)
    assert (await client.task(task.id)).outputs == done.outputs
    assert await kinds(client, task) == ["created", "leased", "expired", "leased", "finished", "excused"]
    assert (await client.task(task.id)).deaths == 0
    after = await client.upload(photo(131))
    assert (await client.wait(after.id, timeout=20)).state is State.FINISHED


async def test_work_on_a_cancelled_task_is_aborted(client: Client, start: Start) -> None:
    worker = await start("--lease-duration", "1")
    task = await slow(client, 140, LONG)
    await begun(worker, task)
    await client.cancel(task.id)
    await worker.log(lambda line: "Lost the lease" in line["message"] and line.get("task") == task.id)
    told = time.monotonic()
    after = await client.upload(photo(141))
    assert (await client.wait(after.id, timeout=20)).state is State.FINISHED
    assert time.monotonic() - told < 7, "the cancelled photo must not keep the only slot"


async def test_a_decoder_that_crashes_is_charged_to_its_image_only(client: Client, start: Start) -> None:
    worker = await start("--slots", "2")
    victim = await slow(client, 150, LONG)
    await begun(worker, victim)
    before = children(worker.process.pid)
    busy = await _busiest(before)
    beside = await slow(client, 151)
    await begun(worker, beside)
    os.kill(busy, signal.SIGKILL)
    assert await died_of(client, victim) == "decoder_crashed"
    done = await client.wait(beside.id, timeout=30)
    assert (done.state, done.deaths, done.attempts) == (State.FINISHED, 0, 1)
    assert worker.running
    await client.cancel(victim.id)


async def test_an_image_that_takes_too_long_twice_is_quarantined_with_the_reason(client: Client, start: Start) -> None:
    worker = await start("--time-limit", "0.5")
    task = await client.wait((await slow(client, 160, LONG)).id, timeout=30)
    assert task.state is State.QUARANTINED
    assert task.failure is not None
    assert task.failure.code == "timed_out"
    assert task.deaths == 2
    assert 'safelight_worker_decoder_restarts_total{reason="timed_out"} 2.0' in await metrics(worker)
    after = await client.upload(photo(161))
    assert (await client.wait(after.id, timeout=20)).state is State.FINISHED
    assert worker.running


async def test_a_worker_survives_restarts_of_the_services(whole: System, client: Client, start: Start) -> None:
    worker = await start("--lease-duration", "30")
    task = await slow(client, 170)
    await begun(worker, task)
    for name in ("master", "storage", "db"):
        await whole.kill(name)
    for name in ("db", "storage", "master"):
        await (await whole.start(name)).address()
    await whole.ready()
    done = await client.wait(task.id, timeout=60)
    assert (done.state, done.attempts) == (State.FINISHED, 1), await kinds(client, task)
    after = await client.upload(photo(171))
    assert (await client.wait(after.id, timeout=20)).state is State.FINISHED


async def test_decoders_end_when_their_worker_is_killed(client: Client, start: Start) -> None:
    worker = await start()
    task = await slow(client, 180, LONG)
    await begun(worker, task)
    decoders = children(worker.process.pid)
    assert decoders
    worker.send(signal.SIGKILL)
    await worker.ended()
    for pid in decoders:
        await gone(pid)
    await client.cancel(task.id)


async def test_unbegun_tasks_of_a_killed_worker_are_returned_at_once(
    whole: System, start: Start, client: Client
) -> None:
    killed = await start()
    begun_one = await slow(client, 190, LONG)
    await begun(killed, begun_one)
    # Upload it only now, because the smaller of two photos that are fetched together may be decoded first.
    fetched_one = await slow(client, 191)
    await leased(client, fetched_one)
    await whole.kill("worker-0")
    successor = await whole.start("worker-0")
    assert (await client.wait(fetched_one.id, timeout=20)).state is State.FINISHED
    assert await kinds(client, fetched_one) == ["created", "leased", "returned", "leased", "finished"]
    # The photo that was being decoded may be the cause of the death, so its lease must expire first.
    assert await kinds(client, begun_one) == ["created", "leased"]
    assert [path.name for path in (whole.data / "worker-0").iterdir()] == [successor_id(await client.summary())]
    await client.cancel(begun_one.id)
    assert await successor.stop() == 0
    assert list((whole.data / "worker-0").iterdir()) == []


async def test_a_stop_while_no_master_answers_is_not_a_death(whole: System, start: Start, client: Client) -> None:
    stopped = await start("--lease-duration", "2", "--drain", "0.2")
    await stopped.log("Nothing to do at the moment")
    for decoder in children(stopped.process.pid):
        os.kill(decoder, signal.SIGSTOP)  # so that its photo takes long
    task = await client.upload(photo(200))
    await begun(stopped, task)
    await whole.kill("master")
    stopped.send(signal.SIGTERM)
    assert await stopped.ended() == 0
    await whole.start("master")
    await whole.ready()
    await happened(client, task, "expired")
    await whole.start("worker-0")
    await happened(client, task, "excused")
    done = await client.wait(task.id, timeout=30)
    assert (done.state, done.deaths) == (State.FINISHED, 0)


def successor_id(summary: Summary) -> str:
    """Return the id of the worker that was heard last."""
    return max(summary.workers, key=lambda seen: seen.first_seen).worker.id


async def _busiest(pids: list[int]) -> int:
    """Return the process whose processor time grows."""

    def ticks(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])

    start = {pid: ticks(pid) for pid in pids}
    async with asyncio.timeout(60):
        while True:
            grown = {pid: ticks(pid) - start[pid] for pid in pids}
            if max(grown.values()) >= 20:
                return max(grown, key=lambda pid: grown[pid])
            await asyncio.sleep(0.02)  # there is no event for used processor time
