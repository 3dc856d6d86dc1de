"""Test the life of tasks against a small model, with random histories and a simulated clock."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from safelight.db.postgres import PostgresStore
from safelight.db.sqlite import SqliteStore
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.steady import ManualClock
from safelight.wire import ENDED, Returned, State, TaskQuery
from support.tasks import died, failed, finished, new_task, request

POLICY = Policy(max_errors=2, retry_first=10, retry_longest=10, max_deaths=2, oldest_every=0)
LASTS = 30.0


class Expected:
    """The model's record of a task."""

    def __init__(self, place: int, priority: int, state: State) -> None:
        self.place = place
        self.priority = priority
        self.state = state
        self.errors = 0
        self.deaths = 0
        self.attempts = 0
        self.lease: str | None = None
        self.expires = 0.0
        self.due = 0.0
        self.settled: tuple[str, str] | None = None
        self.missing: set[str] = set()

    def leave(self, state: State) -> None:
        self.state, self.lease = state, None

    def die(self) -> None:
        self.deaths += 1
        self.leave(State.QUARANTINED if self.deaths >= POLICY.max_deaths else State.WAITING)

    def excuse(self, lease: str) -> None:
        """Take back the death of an expired lease, because its worker is still alive."""
        if self.deaths and self.state in {State.WAITING, State.WORKING, State.QUARANTINED, State.FINISHED}:
            self.deaths -= 1
            self.missing.remove(lease)
            self.state = State.WAITING if self.state is State.QUARANTINED else self.state


class Machine(RuleBasedStateMachine):
    tasks = Bundle("tasks")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.expected: dict[str, Expected] = {}
        self.places = count()
        self.runner = asyncio.Runner()
        self.data = AsyncExitStack()
        self.opens = self.do(self.data.enter_async_context(self.new_data()))
        self.stack = AsyncExitStack()
        self.last_seq = 0
        self.do(self.open())

    @staticmethod
    def new_data():
        """Yield functions that open new, empty data."""
        raise NotImplementedError

    def do(self, call):
        return self.runner.run(call)

    async def open(self) -> None:
        self.store = await self.stack.enter_async_context(
            self.opens(policy=POLICY, clock=ManualClock(lambda: self.now))
        )

    def teardown(self) -> None:
        self.do(self.stack.aclose())
        self.do(self.data.aclose())
        self.runner.close()

    @rule(target=tasks, priority=st.integers(-1, 1), state=st.sampled_from([State.WAITING, State.UPLOADING]))
    def create(self, priority, state):
        (task,) = self.do(self.store.create([new_task(priority=priority, state=state)]))
        self.expected[task.id] = Expected(next(self.places), priority, state)
        return task.id

    @rule(target=leases, n=st.integers(1, 3))
    def lease(self, n):
        taken = self.do(self.store.lease(request(f"worker {self.now} {self.last_seq}", n=n, seconds=LASTS)))
        waiting = [
            (t.priority, -t.place, name) for name, t in self.expected.items() if t.state is State.WAITING and not t.due
        ]
        assert [lease.task for lease in taken] == [name for _, _, name in sorted(waiting, reverse=True)[:n]]
        for lease in taken:
            task = self.expected[lease.task]
            task.state, task.lease, task.expires = State.WORKING, lease.id, self.now + LASTS
            task.attempts += 1
            assert lease.attempt == task.attempts
        return multiple(*(lease.id for lease in taken))

    @rule(lease=leases, kind=st.sampled_from(["finished", "failed", "fatal", "died", "returned"]))
    def settle(self, lease, kind):
        outcome = {
            "finished": finished(lease),
            "failed": failed(lease),
            "fatal": failed(lease, permanent=True),
            "died": died(lease),
            "returned": Returned(lease=lease),
        }[kind]
        (answer,) = self.do(self.store.settle([outcome]))
        task = self.expected.get("-".join(lease.split("-")[:2]))
        name = "failed" if kind == "fatal" else kind
        if task is None or task.lease != lease:
            repeated = task is not None and task.settled == (lease, name)
            assert (answer.problem is None) == repeated
            if task is not None and lease in task.missing and kind != "died":
                task.excuse(lease)
            return
        task.settled = (lease, name)
        match kind:
            case "finished":
                task.leave(State.FINISHED)
            case "failed" | "fatal":
                task.errors += 1
                final = kind == "fatal" or task.errors >= POLICY.max_errors
                task.leave(State.FAILED if final else State.WAITING)
                task.due = 0.0 if final else self.now + POLICY.retry_longest
            case "died":
                task.die()
            case "returned":
                task.leave(State.WAITING)
        assert answer.state is task.state

    @rule(id=tasks, action=st.sampled_from(["ready", "cancel", "retry", "release", "delete"]))
    def change(self, id, action):
        task = self.expected.get(id)
        allowed = {
            "ready": {State.UPLOADING, State.WAITING},
            "cancel": {State.UPLOADING, State.WAITING, State.WORKING, State.CANCELLED},
            "retry": {State.FAILED, State.CANCELLED, State.QUARANTINED},
            "release": {State.QUARANTINED},
            "delete": set(State),
        }[action]
        call = getattr(self.store, action)(id)
        if task is None or task.state not in allowed:
            with pytest.raises(Error) as caught:
                self.do(call)
            assert caught.value.code is (Code.NOT_FOUND if task is None else Code.CONFLICT)
            return
        self.do(call)
        if action == "delete":
            del self.expected[id]
        elif action == "cancel":
            task.leave(State.CANCELLED)
            task.due = 0.0
        elif action == "ready":
            task.state = State.WAITING
        else:
            task.leave(State.WAITING)
            task.errors = task.deaths = 0
            task.missing.clear()

    @rule(seconds=st.sampled_from([1.0, 11.0, 31.0]))
    def pass_time(self, seconds):
        self.now += seconds
        self.do(self.store.pass_time())
        for task in self.expected.values():
            if task.lease is not None and task.expires <= self.now:
                task.settled = (task.lease, "expired")
                task.missing.add(task.lease)
                task.die()
            if task.due and task.due <= self.now:
                task.due = 0.0

    @rule()
    def restart(self):
        self.do(self.stack.aclose())
        self.do(self.open())
        for task in self.expected.values():
            task.expires = max(task.expires, self.now + LASTS)

    @invariant()
    def agrees(self):
        found = {task.id: task for task in self.do(self.store.find(TaskQuery(limit=1000))).tasks}
        assert found.keys() == self.expected.keys()
        for name, task in self.expected.items():
            real = found[name]
            assert (real.state, real.errors, real.deaths) == (task.state, task.errors, task.deaths)
            assert real.attempts == task.attempts
            assert bool(real.outputs) == (task.state is State.FINISHED)
            assert (real.lease is not None) == (task.state is State.FINISHED)
        summary = self.do(self.store.summary())
        assert sum(summary.tasks.values()) == len(found)
        assert summary.tasks["waiting"] == sum(task.state is State.WAITING for task in found.values())
        page = self.do(self.store.events(self.last_seq))
        assert all(event.seq > self.last_seq for event in page.events)
        self.last_seq = page.last
        for event in page.events:
            if event.kind == "finished":
                assert event.state in ENDED


@asynccontextmanager
async def new_file():
    with tempfile.TemporaryDirectory() as directory:
        yield partial(SqliteStore.open, Path(directory) / "tasks.sqlite")


@asynccontextmanager
async def new_database(server):
    yield partial(PostgresStore.open, await server.empty(), readers=1)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_random_histories_agree_with_the_model(request, monkeypatch, backend):
    server = request.getfixturevalue("postgres_server") if backend == "postgres" else None

    class OfBackend(Machine):
        @staticmethod
        def new_data():
            return new_file() if server is None else new_database(server)

    monkeypatch.setattr("safelight.db.retry.random.uniform", lambda _low, high: high)
    run_state_machine_as_test(
        OfBackend,
        settings=settings(
            max_examples=30 if server is None else 6,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
