"""Test that a clock that has jumped deletes nothing until a person or time confirms it."""

from __future__ import annotations

import pytest

from safelight.db.store import Policy
from safelight.steady import Clock
from safelight.wire import State, TaskQuery
from support.programs.until import until
from support.tasks import finished, new_task, request

DAY = 86400.0


class JumpingClock(Clock):
    """This machine's clock, set ahead or back; `passed` is additional elapsed time."""

    offset = passed = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset + self.passed

    def steady(self) -> float:
        return super().steady() + self.offset + self.passed

    def running(self) -> float:
        return super().running() + self.passed


async def test_a_person_confirms_a_clock_that_has_jumped(backend):
    clock = JumpingClock()
    async with backend.open(policy=Policy(keep_tasks=30 * DAY), clock=clock) as store:

        async def finish() -> str:
            await store.create([new_task()])
            (lease,) = await store.lease(request(n=1))
            assert (await store.settle([finished(lease.id)]))[0].state is State.FINISHED
            return lease.task

        async def left() -> list[str]:
            await store.pass_time()
            return [task.id for task in (await store.find(TaskQuery())).tasks]

        first = await finish()
        clock.offset += 40 * DAY
        assert await left() == [first]
        assert (await store.clock_confirmed()).at == 0.0
        confirmed = await store.confirm_clock()
        assert (await store.clock_confirmed()) == confirmed

        async def all_gone() -> bool:
            return await left() == []

        await until(all_gone, timeout=30)
        second = await finish()
        clock.offset += 40 * DAY
        assert await left() == [second]
        clock.offset -= 40 * DAY
        assert await left() == [second]
        assert (await store.confirm_clock()).at > confirmed.at
        await store.pass_time()
        assert await left() == [second], "the second task is not old by the confirmed clock"


@pytest.mark.parametrize("jumps", [[40], [20], [-40, 40], [40, -40, 40], [40, -30, 25], [40, -40]])
async def test_no_jump_deletes_a_task_before_its_time(backend, jumps):
    """A machine without a clock of its own starts with a time that is behind, and learns the right one later."""
    clock = JumpingClock()
    async with backend.open(policy=Policy(keep_tasks=30 * DAY), clock=clock) as store:
        await store.create([new_task()])
        (lease,) = await store.lease(request(n=1))
        await store.settle([finished(lease.id)])

        async def left() -> int:
            await store.pass_time()
            return len((await store.find(TaskQuery())).tasks)

        for jump in jumps:
            await left()
            clock.offset += jump * DAY
        while await left():
            clock.passed += DAY / 2
            assert clock.passed < 40 * DAY
        assert clock.passed >= 30 * DAY


async def test_a_day_without_another_jump_confirms_a_clock_that_was_set_back(backend):
    clock = JumpingClock()
    async with backend.open(policy=Policy(keep_tasks=30 * DAY), clock=clock) as store:
        await store.create([new_task()])
        (lease,) = await store.lease(request(n=1))
        await store.settle([finished(lease.id)])

        async def left() -> int:
            await store.pass_time()
            return len((await store.find(TaskQuery())).tasks)

        await left()
        clock.offset -= DAY
        clock.passed += 40 * DAY  # asleep
        for _ in range(3):
            assert await left() == 1
            clock.passed += DAY / 4

        async def gone() -> bool:
            clock.passed += DAY / 4
            return await left() == 0

        await until(gone, timeout=30)
        assert 41 * DAY <= clock.passed < 44 * DAY


async def test_a_worker_was_seen_just_now_after_the_clock_has_jumped(backend):
    """A machine learns the right time after db has started; its workers must not look gone, nor dead ones alive."""

    class SetClock(Clock):
        ahead = 0.0

        def wall(self) -> float:
            return super().wall() + self.ahead

    clock = SetClock()
    async with backend.open(clock=clock) as store:
        for clock.ahead in (DAY, -DAY):
            (task,) = await store.create([new_task()])
            await store.lease(request(n=1))
            (seen,) = (await store.summary()).workers
            assert abs(seen.last_seen - task.created) < 60
