"""Test db over HTTP against a model, with several concurrent clients: some order of the calls explains all answers.

In each step, different clients send one call each at the same time. The calls must be linearizable: in some order, the
model, called one after another, gives exactly the same answers (Wing and Gong's search, over all states that the
earlier steps may have led to). Therefore each lease is given to one worker, and settled once.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from safelight import serve
from safelight.client.db import DbClient
from safelight.db.__main__ import Config, build
from safelight.errors import Error
from safelight.wire import Heartbeat, Returned, State, WorkerInfo
from support.tasks import died, failed, finished, new_task, request

CLIENTS = 4
MAX_DEATHS = 2
_OPEN = {State.WAITING, State.WORKING}
_TO_RETRY = {State.FAILED, State.CANCELLED, State.QUARANTINED}


class Known(NamedTuple):
    """The model's record of a task. The number is the age."""

    number: int
    id: str
    key: str
    state: State = State.WAITING
    attempts: int = 0
    deaths: int = 0
    lease: str = ""
    settled: tuple[str, str] = ("", "")


Tasks = tuple[Known, ...]


class Said(NamedTuple):
    """A call and its answer; the meaning of `of` depends on the kind of call."""

    kind: str
    of: str
    answer: object


def after(tasks: Tasks, said: Said) -> Tasks | None:
    """Return the tasks after a call, if the model gives this answer; otherwise None."""
    return globals()[f"_{said.kind}"](tasks, said.of, said.answer)


def _changed(tasks: Tasks, old: Known, **changes: object) -> Tasks:
    return tuple(old._replace(**changes) if task is old else task for task in tasks)


def _create(tasks: Tasks, key: str, answer: object) -> Tasks | None:
    known = next((task for task in tasks if task.key == key), None)
    if known is not None:
        return tasks if known.id == answer else None
    number = int(str(answer).partition("-")[0])
    return None if any(task.id == answer for task in tasks) else (*tasks, Known(number, str(answer), key))


def _lease(tasks: Tasks, _worker: str, answer: object) -> Tasks | None:
    first = min((task for task in tasks if task.state is State.WAITING), default=None)
    if first is None or answer is None:
        return tasks if first is answer is None else None
    task, lease, attempt = answer
    if (task, attempt) != (first.id, first.attempts + 1) or any(lease in (t.lease, t.settled[0]) for t in tasks):
        return None
    return _changed(tasks, first, state=State.WORKING, lease=lease, attempts=attempt)


def _settle(tasks: Tasks, of: str, answer: object) -> Tasks | None:
    kind, _, lease = of.partition(" ")
    task = next((task for task in tasks if task.lease == lease), None)
    if task is None:
        repeated = any(task.settled == (lease, kind) for task in tasks)
        return tasks if answer is repeated else None
    if not answer:
        return None
    deaths = task.deaths + (kind == "died")
    state = {"finished": State.FINISHED, "failed": State.FAILED}.get(kind, State.WAITING)
    state = State.QUARANTINED if kind == "died" and deaths >= MAX_DEATHS else state
    return _changed(tasks, task, state=state, lease="", settled=(lease, kind), deaths=deaths)


def _cancel(tasks: Tasks, id: str, answer: object) -> Tasks | None:
    task = next(task for task in tasks if task.id == id)
    if task.state not in _OPEN | {State.CANCELLED}:
        return None if answer else tasks
    return _changed(tasks, task, state=State.CANCELLED, lease="") if answer else None


def _retry(tasks: Tasks, id: str, answer: object) -> Tasks | None:
    task = next(task for task in tasks if task.id == id)
    if task.state not in _TO_RETRY:
        return None if answer else tasks
    return _changed(tasks, task, state=State.WAITING, deaths=0) if answer else None


def _get(tasks: Tasks, id: str, answer: object) -> Tasks | None:
    task = next(task for task in tasks if task.id == id)
    return tasks if (task.state, task.attempts, task.deaths) == answer else None


def _beat(tasks: Tasks, leases: str, answer: object) -> Tasks | None:
    held = {task.lease for task in tasks}
    return tasks if answer == {lease for lease in leases.split() if lease not in held} else None


_CALLS = st.tuples(
    st.sampled_from(
        ["create", "create", "lease", "lease", "lease", "settle", "settle", "cancel", "retry", "get", "beat"]
    ),
    st.integers(0, 7),
    st.sampled_from(["finished", "failed", "died", "returned"]),
)


class Concurrent(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.possible: set[Tasks] = {()}
        self.ids: list[str] = []
        self.leases: list[str] = []
        self.granted: dict[str, int] = {}
        self.holding: list[list[str]] = [[] for _ in range(CLIENTS)]
        self.runner.run(self.open())

    async def open(self) -> None:
        data = self.stack.enter_context(TemporaryDirectory())
        config = Config(port=0, data=str(Path(data) / "db"), max_deaths=MAX_DEATHS, oldest_every=0)
        running = await self.stack.enter_async_context(serve.running("db", config, build))
        address = f"127.0.0.1:{running.port}"
        self.clients = [await self.stack.enter_async_context(DbClient.connect(address)) for _ in range(CLIENTS)]

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    @rule(calls=st.lists(_CALLS, min_size=1, max_size=CLIENTS))
    def at_once(self, calls) -> None:
        said = self.runner.run(self.send(calls))
        found = {
            state
            for before in self.possible
            for order in permutations(said)
            if (state := self.explained(before, order)) is not None
        }
        assert found, f"no order explains {said} after {self.possible}"
        self.possible = found

    @staticmethod
    def explained(state: Tasks | None, order) -> Tasks | None:
        for one in order:
            state = after(state, one)
            if state is None:
                return None
        return state

    async def send(self, calls) -> list[Said]:
        sent = (self.call(client, *call) for client, call in enumerate(calls))
        return [said for said in await asyncio.gather(*sent) if said is not None]

    async def call(self, client: int, kind: str, which: int, outcome: str) -> Said | None:
        db = self.clients[client]
        if kind == "create":
            key = f"key {which}"
            (task,) = await db.create([new_task(f"photo {key}", idempotency_key=key)])
            self.ids += [task.id] if task.id not in self.ids else []
            return Said(kind, key, task.id)
        if kind == "lease":
            return await self.lease(client)
        if kind == "beat":
            holding = self.leases[-3:]
            beat = Heartbeat(worker=WorkerInfo(id=f"w{client}"), holding=holding, seconds=3600)
            return Said(kind, " ".join(holding), set((await db.heartbeat(beat)).lost))
        if kind == "settle":
            return await self.settle(client, which, outcome) if self.leases else None
        if not self.ids:
            return None
        of = self.ids[which % len(self.ids)]
        if kind == "get":
            task = await db.get(of)
            return Said(kind, of, (task.state, task.attempts, task.deaths))
        try:
            await (db.cancel(of) if kind == "cancel" else db.retry(of))
        except Error:
            return Said(kind, of, answer=False)
        return Said(kind, of, answer=True)

    async def lease(self, client: int) -> Said:
        asked = request(f"w{client}", holding=self.holding[client], seconds=3600)
        leases = await self.clients[client].lease(asked)
        if not leases:
            return Said("lease", "", None)
        lease = leases[0]
        assert lease.id not in self.granted, f"{lease.id} was given to two workers"
        self.granted[lease.id] = client
        self.leases.append(lease.id)
        self.holding[client].append(lease.id)
        return Said("lease", "", (lease.task, lease.id, lease.attempt))

    async def settle(self, client: int, which: int, kind: str) -> Said:
        lease = self.leases[-1 - which % len(self.leases)]
        outcome = {
            "finished": finished(lease),
            "failed": failed(lease, permanent=True),
            "died": died(lease),
            "returned": Returned(lease=lease),
        }[kind]
        (answer,) = await self.clients[client].settle([outcome])
        return Said("settle", f"{kind} {lease}", answer.problem is None)


@pytest.mark.slow
def test_concurrent_calls_have_an_order_that_explains_their_answers() -> None:
    run_state_machine_as_test(
        Concurrent,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
