"""Test leases and outcomes in all stores of db: errors, deaths, heartbeats, returns."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from safelight.errors import Code
from safelight.wire import (
    Heartbeat,
    Returned,
    State,
    WorkerInfo,
)
from support.tasks import died, digest, failed, finished, new_task, refused, request


async def test_an_outcome_may_be_repeated_but_not_changed(store):
    await store.create([new_task(), new_task()])
    one, two = await store.lease(request(n=2))
    for _ in range(2):
        answers = await store.settle([finished(one.id), Returned(lease=two.id), finished(one.id)])
        assert [answer.state for answer in answers] == [State.FINISHED, State.WAITING, State.FINISHED]
    answers = await store.settle([failed(one.id), finished(two.id)])
    assert [answer.problem["code"] for answer in answers] == ["lease_lost", "lease_lost"]
    assert (await store.get(one.task)).state is State.FINISHED


async def test_a_returned_task_keeps_its_place_and_its_counts(store):
    made = await store.create([new_task(), new_task()])
    (lease,) = await store.lease(request())
    await store.settle([Returned(lease=lease.id)])
    again = await store.lease(request(n=2))
    assert [lease.task for lease in again] == [task.id for task in made]
    assert again[0].attempt == 2
    assert again[0].id != lease.id
    task = await store.get(made[0].id)
    assert (task.errors, task.deaths) == (0, 0)


async def test_an_outcome_of_an_unknown_lease_changes_nothing(store):
    (made,) = await store.create([new_task()])
    (lease,) = await store.lease(request())
    forged = [lease.id[:-1] + "a", lease.id[:-1] + "b", lease.id.replace("-1-", "-2-", 1), made.id, "nonsense", ""]
    answers = await store.settle([finished(name) for name in forged if name != lease.id])
    assert {answer.problem["code"] for answer in answers} == {"lease_lost"}
    assert (await store.get(made.id)).state is State.WORKING


async def test_an_answer_with_large_recipes_has_fewer_leases_than_were_asked_for(store):
    made = []
    for name in ("logo", "logo", "logo", "logo", "mark", "badge", "logo", "largest"):
        spec = msgspec.Raw(msgspec.json.encode(name * ((3 << 20) // len(name))))
        made += await store.create([new_task(recipe=name, recipe_digest=digest(name), spec=spec)])
    made += await store.create([new_task()])
    taken, held = [], []
    while len(held) < len(made):
        leases = await store.lease(request(n=100, holding=held))
        taken.append([lease.task for lease in leases])
        held += [lease.id for lease in leases]
    assert [len(tasks) for tasks in taken] == [2, 2, 2, 3]
    assert [task for tasks in taken for task in tasks] == [task.id for task in made]


async def test_a_permanent_error_fails_the_task_at_once(store):
    (made,) = await store.create([new_task()])
    (lease,) = await store.lease(request())
    await store.settle([failed(lease.id, permanent=True)])
    task = await store.get(made.id)
    assert (task.state, task.failure.code, task.errors) == (State.FAILED, "damaged_image", 1)


async def test_transient_errors_are_retried_up_to_a_limit(opened):
    store = await opened(max_errors=3, retry_first=0.02, retry_longest=0.03)
    (made,) = await store.create([new_task()])
    for attempt in (1, 2, 3):
        (lease,) = await store.lease(request(wait=10))
        assert lease.attempt == attempt
        await store.settle([failed(lease.id)])
    task = await store.get(made.id)
    assert (task.state, task.errors, task.deaths, task.failure.code) == (State.FAILED, 3, 0, "unavailable")
    kinds = [event.kind for event in (await store.events(0, task=made.id)).events]
    assert kinds == ["created", *["leased", "delayed"] * 2, "leased", "failed"]


async def test_a_delayed_task_is_not_leased_before_its_time(opened):
    store = await opened(retry_first=100)
    await store.create([new_task()])
    (lease,) = await store.lease(request())
    await store.settle([failed(lease.id)])
    assert await store.lease(request()) == []
    summary = await store.summary()
    assert (summary.tasks["waiting"], summary.delayed) == (1, 1)


async def test_deaths_lead_to_quarantine_with_the_cause(store):
    (made,) = await store.create([new_task()])
    for state in (State.WAITING, State.QUARANTINED):
        (lease,) = await store.lease(request())
        (answer,) = await store.settle([died(lease.id)])
        assert answer.state is state
    task = await store.get(made.id)
    assert (task.deaths, task.errors, task.failure.code) == (2, 0, "out_of_memory")
    released = await store.release(made.id)
    assert (released.state, released.deaths, released.failure) == (State.WAITING, 0, None)
    await refused(Code.CONFLICT, store.release(made.id))


@pytest.mark.slow
async def test_an_expired_lease_is_a_death_and_fenced(store):
    (made,) = await store.create([new_task()])
    (first,) = await store.lease(request("a", seconds=0.05))
    (second,) = await store.lease(request("b", wait=10, seconds=0.05))
    assert second.attempt == 2
    assert await store.lease(request("b", wait=2.0, holding=[second.id])) == []
    task = await store.get(made.id)
    assert (task.state, task.deaths, task.failure.code) == (State.QUARANTINED, 2, "worker_lost")
    for answer in await store.settle([finished(lease.id) for lease in (first, second)]):
        assert (answer.problem["code"], answer.problem["state"]) == ("lease_lost", "quarantined")
    assert (await store.get(made.id)).outputs == []


async def test_a_worker_that_comes_back_takes_its_death_back(store):
    """The worker was suspended or the master was away, so there was no death. The lease stays lost."""
    (made,) = await store.create([new_task()])
    (first,) = await store.lease(request("a", seconds=0.05))
    (second,) = await store.lease(request("b", wait=10, seconds=0.05))
    page = await store.events(0, task=made.id)
    while len(page.events) < 5:
        await store.events(page.last, wait=10, task=made.id)
        page = await store.events(0, task=made.id)
    assert (await store.get(made.id)).state is State.QUARANTINED
    for _ in range(2):  # a death is taken back only once
        answer = await store.heartbeat(Heartbeat(worker=WorkerInfo(id="b"), holding=[second.id]))
        assert answer.lost == [second.id]
        task = await store.get(made.id)
        assert (task.state, task.deaths, task.failure.code) == (State.WAITING, 1, "worker_lost")
    kinds = [event.kind for event in (await store.events(0, task=made.id)).events]
    assert kinds == ["created", "leased", "expired", "leased", "expired", "excused"]
    (answer,) = await store.settle([finished(second.id)])
    assert answer.problem["code"] == "lease_lost"
    assert first.task == second.task


async def test_a_successor_takes_no_death_back(store):
    """The successor names the task that the dead worker was decoding, which shows that this worker has ended."""
    (made,) = await store.create([new_task()])
    (lease,) = await store.lease(request("a", seconds=0.05))
    page = await store.events(0, task=made.id)
    while len(page.events) < 3:
        await store.events(page.last, wait=10, task=made.id)
        page = await store.events(0, task=made.id)
    assert await store.lease(request("a", n=0, holding=[lease.id])) == []
    assert (await store.get(made.id)).deaths == 1


async def test_heartbeats_extend_leases_and_return_lost_ones(store):
    await store.create([new_task(), new_task()])
    kept, lapsing = await store.lease(request("a", n=2, seconds=0.2))
    worker = WorkerInfo(id="a")
    answer = await store.heartbeat(Heartbeat(worker=worker, holding=[kept.id], seconds=60))
    assert answer.lost == []
    (again,) = await store.lease(request("b", wait=10))
    assert again.task == lapsing.task
    answer = await store.heartbeat(Heartbeat(worker=worker, holding=[kept.id, lapsing.id, "x"], seconds=60))
    assert answer.lost == [lapsing.id, "x"]
    assert (await store.settle([finished(kept.id)]))[0].state is State.FINISHED


async def test_a_lease_whose_answer_was_lost_is_returned_at_once(store):
    await store.create([new_task() for _ in range(3)])
    one, lost = await store.lease(request(n=2))
    (again,) = await store.lease(request(holding=[one.id]))
    assert again.task == lost.task
    assert again.attempt == 2
    assert (await store.get(lost.task)).deaths == 0
    assert (await store.settle([finished(lost.id)]))[0].problem["code"] == "lease_lost"
    assert len(await store.lease(request("other", n=9))) == 1


async def test_an_expired_lease_whose_answer_was_lost_is_not_a_death(store):
    """The network was cut for longer than the lease, so the worker never received the lease."""
    (made,) = await store.create([new_task()])
    await store.lease(request("cut off", seconds=0.05))
    (again,) = await store.lease(request("other", wait=10))
    assert (again.task, (await store.get(made.id)).deaths) == (made.id, 1)
    for _ in range(2):
        assert await store.lease(request("cut off")) == []
        assert (await store.get(made.id)).deaths == 0
    assert (await store.settle([finished(again.id)]))[0].state is State.FINISHED


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_sign_of_life_takes_back_the_deaths_of_leases_that_never_arrived(opened, restarted):
    """A worker with a hanging request for leases sends a heartbeat; db may have restarted meanwhile."""
    store = await opened()
    (made,) = await store.create([new_task()])
    await store.lease(request("cut off", seconds=0.05))
    (again,) = await store.lease(request("other", wait=30))
    if restarted:
        store = await opened()
    assert (await store.get(made.id)).deaths == 1
    assert (await store.heartbeat(Heartbeat(worker=WorkerInfo(id="other"), holding=[again.id]))).lost == []
    assert (await store.get(made.id)).deaths == 1, "only the same worker's sign of life takes a death back"
    for _ in range(2):
        await store.heartbeat(Heartbeat(worker=WorkerInfo(id="cut off"), holding=[]))
        assert (await store.get(made.id)).deaths == 0
    assert (await store.settle([finished(again.id)]))[0].state is State.FINISHED


async def test_no_task_is_leased_twice_at_once(store):
    made = await store.create([new_task() for _ in range(60)])
    leases = [
        lease
        for taken in await asyncio.gather(*(store.lease(request(f"w{number}", n=7)) for number in range(20)))
        for lease in taken
    ]
    assert sorted(lease.task for lease in leases) == sorted(task.id for task in made)


async def test_a_wait_for_a_task_ends_with_the_task(store):
    waiting = asyncio.create_task(store.lease(request(wait=30)))
    (made,) = await store.create([new_task()])
    (lease,) = await asyncio.wait_for(waiting, 10)
    assert lease.task == made.id
    assert await store.lease(request("b", wait=0.05)) == []


async def test_uploading_tasks_become_ready(store):
    (made,) = await store.create([new_task(input=None, state=State.UPLOADING)])
    assert await store.lease(request()) == []
    assert (await store.ready(made.id)).state is State.WAITING
    assert (await store.ready(made.id)).state is State.WAITING
    (lease,) = await store.lease(request())
    assert lease.input is None
    await refused(Code.CONFLICT, store.ready(made.id))


@pytest.mark.slow
async def test_a_drained_worker_keeps_what_it_holds_and_takes_nothing_until_it_is_resumed(store):
    await store.create([new_task() for _ in range(3)])
    (held,) = await store.lease(request("w"))
    assert (await store.drain("w", draining=True)).draining > 0
    waiting = asyncio.create_task(store.lease(request("w", holding=[held.id], wait=30.0)))
    assert len(await store.lease(request("other"))) == 1, "other workers must still get tasks"
    assert await store.lease(request("w", holding=[held.id])) == []
    (seen,) = [each for each in (await store.summary()).workers if each.worker.id == "w"]
    assert (seen.holding, seen.draining > 0) == (1, True)
    (settled,) = await store.settle([finished(held.id)])
    assert settled.state is State.FINISHED
    assert await asyncio.wait_for(waiting, 30.0) == [], "a drained worker's wait must end early"
    assert (await store.drain("w", draining=False)).draining == 0.0
    assert len(await store.lease(request("w"))) == 1
    await refused(Code.NOT_FOUND, store.drain("nobody", draining=True))


async def test_a_worker_that_waits_is_drained_at_once(store):
    waiting = asyncio.create_task(store.lease(request("w", wait=30.0)))
    async with asyncio.timeout(30):
        while not (await store.summary()).workers:
            pass
    await store.drain("w", draining=True)
    await store.create([new_task()])
    assert await asyncio.wait_for(waiting, 20.0) == []
    assert len(await store.lease(request("other"))) == 1


@pytest.mark.slow
async def test_a_worker_that_comes_back_late_takes_its_death_back_too(store):
    """Meanwhile, another worker has died with the task or has finished it."""
    for ends in ("expired", "finished"):
        (made,) = await store.create([new_task()])
        (first,) = await store.lease(request("a", seconds=0.05))
        (second,) = await store.lease(request("b", wait=10, seconds=0.05 if ends == "expired" else 30))
        if ends == "finished":
            await store.settle([finished(second.id)])
        else:
            while (await store.get(made.id)).state is not State.QUARANTINED:
                page = await store.events(0, task=made.id)
                await store.events(page.last, wait=10, task=made.id)
        before = await store.get(made.id)
        for _ in range(2):
            answer = await store.heartbeat(Heartbeat(worker=WorkerInfo(id="a"), holding=[first.id]))
            assert answer.lost == [first.id]
            after = await store.get(made.id)
            assert after.deaths == before.deaths - 1
        if ends == "finished":
            assert (after.state, after.outputs, after.lease) == (State.FINISHED, before.outputs, second.id)
            (repeated,) = await store.settle([finished(second.id)])
            assert repeated.problem is None
        else:
            assert after.state is State.WAITING
            assert after.failure.code == "worker_lost"
            await store.cancel(made.id)


async def expired(store, task: str, times: int) -> None:
    """Wait until leases of a task have expired so many times."""
    page = await store.events(0, task=task)
    while [event.kind for event in page.events].count("expired") < times:
        await store.events(page.last, wait=10, task=task)
        page = await store.events(0, task=task)


async def test_two_deaths_of_a_paused_recipe_that_are_taken_back_at_once_count_once(backend):
    async with backend.open() as store:
        (made,) = await store.create([new_task()])
        leases = [(await store.lease(request(name, wait=10, seconds=0.05)))[0].id for name in "ab"]
        await expired(store, made.id, 2)
        assert (await store.get(made.id)).state is State.QUARANTINED
        await store.accounts.pause_recipe("default", made.recipe, paused=True)
        await store.heartbeat(Heartbeat(worker=WorkerInfo(id="a"), holding=leases))
        task = await store.get(made.id)
        assert (task.state, task.deaths, task.failure) == (State.WAITING, 0, None)
        kinds = [event.kind for event in (await store.events(0, task=made.id)).events]
        assert kinds[-2:] == ["excused", "excused"]
        assert await store.lease(request()) == []
        await store.accounts.pause_recipe("default", made.recipe, paused=False)
        assert (await store.summary()).delayed == 0
        assert [lease.task for lease in await store.lease(request())] == [made.id]


async def test_a_task_whose_other_deaths_are_enough_stays_in_quarantine(opened):
    store = await opened(classic_lease_duration=0.02)
    (made,) = await store.create([new_task(classic=True)])
    late = await store.lease_classic()
    await expired(store, made.id, 1)
    for state in (State.WAITING, State.QUARANTINED):
        (lease,) = await store.lease(request())
        (answer,) = await store.settle([died(lease.id)])
        assert answer.state is state
    await refused(Code.LEASE_LOST, store.finish_classic(late.id))
    task = await store.get(made.id)
    assert (task.state, task.deaths, task.failure.code) == (State.QUARANTINED, 2, "out_of_memory")
