"""Test that a worker hands back what it was just granted, whenever an outage begins or memory runs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from safelight.errors import Code, Error
from safelight.wire import Heartbeat, HeartbeatAnswer, Lease, LeaseRequest, Outcome, Returned, Settled, WorkerInfo
from safelight.worker.leases import Held, Leases
from safelight.worker.metrics import Metrics
from safelight.worker.outage import Outage, OutageError
from safelight.worker.prefetch import Prefetch
from safelight.worker.workdir import Workdir
from safelight.worker.worker import Worker

LEASE = Lease(id="1-lease", task="1-task", attempt=1, expires=2e9, recipe="invert", spec=msgspec.Raw(b"{}"))


class Granting:
    """A master that grants one lease. A real one cannot be made to answer at one step of the worker's event loop."""

    def __init__(self, granting: Callable[[], None], failures: list[Exception]) -> None:
        self._granting = granting
        self._leases = [LEASE]
        self.failures = failures
        """How the next reports of outcomes fail: no memory is left for the answer, or the master refuses them."""
        self.outcomes = asyncio.Queue[Outcome]()

    async def lease(self, request: LeaseRequest) -> list[Lease]:
        if not request.n:
            return []
        if not self._leases:
            await asyncio.Event().wait()
        self._granting()
        return [self._leases.pop()]

    async def heartbeat(self, _heartbeat: Heartbeat) -> HeartbeatAnswer:
        return HeartbeatAnswer()

    async def settle(self, outcomes: list[Outcome]) -> list[Settled]:
        if self.failures:
            raise self.failures.pop()
        for outcome in outcomes:
            self.outcomes.put_nowait(outcome)
        return [Settled(lease=outcome.lease) for outcome in outcomes]


class Endless:
    """Attempts that never end."""

    async def make(self, _held: Held) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError


class Found:
    """Discovery that knows every service."""

    async def wait_for(self, _service: str) -> None:
        return


def after(steps: int, call: Callable[[], None]) -> None:
    """Call a function after so many steps of the event loop."""
    if steps:
        asyncio.get_running_loop().call_soon(after, steps - 1, call)
    else:
        call()


@pytest.mark.parametrize("steps", range(8))
async def test_a_lease_is_handed_back_at_whichever_step_an_outage_begins(tmp_path: Path, steps: int) -> None:
    await hands_back(tmp_path, steps)


async def test_an_outcome_is_sent_again_when_there_was_no_memory_for_its_answer(tmp_path: Path) -> None:
    await hands_back(tmp_path, failures=[MemoryError(), MemoryError()])


@pytest.mark.parametrize("code", [Code.UNAUTHENTICATED, Code.FORBIDDEN])
async def test_an_outcome_is_sent_again_until_the_master_knows_the_worker(tmp_path: Path, code: Code) -> None:
    await hands_back(tmp_path, failures=[Error(code, "The key is unknown.") for _ in range(3)])


async def hands_back(directory: Path, steps: int = 3, *, failures: Sequence[Exception] = ()) -> None:
    """Run a worker until it has returned its only lease, for an outage that begins so many steps after the grant."""
    nothing: Any = None
    outage = Outage(nothing, nothing)
    error = OutageError(Error(Code.UNAVAILABLE, "No answer."))
    master: Any = Granting(lambda: after(steps, lambda: outage.begin(error)), list(failures))
    attempts: Any = Endless()
    discovery: Any = Found()
    leases = Leases(master, lambda: WorkerInfo(id="worker"), 30.0, Metrics(CollectorRegistry(), 1))
    with Workdir.open(directory, "worker", 1) as workdir:
        worker = Worker(leases, attempts, Prefetch(1, 1), discovery, workdir, outage, drain=0.0)
        async with worker.running():
            async with asyncio.timeout(5):
                assert await master.outcomes.get() == Returned(lease=LEASE.id)
                assert await leases.settled(5)
    assert not master.failures
