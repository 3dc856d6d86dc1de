"""Test features that only the SQLite backend has."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from safelight.db.sqlite import SqliteStore, memory
from safelight.db.sqlite.connection import Connection, statements
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.sql.scripts import migrations
from safelight.steady import ManualClock
from safelight.wire import State
from safelight.wire.accounts import Limits, Tenant, Wanted
from support.tasks import finished, new_task, request


@pytest.fixture
async def store(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as opened:
        yield opened


@pytest.mark.parametrize("version", range(len(migrations("safelight.db.sqlite")) + 1))
async def test_a_file_of_any_version_is_migrated(tmp_path, version):
    path = tmp_path / "tasks.sqlite"
    with sqlite3.connect(path) as old:
        for script in migrations("safelight.db.sqlite")[:version]:
            old.executescript(script)
        old.execute(f"PRAGMA user_version = {version}")
    old.close()
    async with SqliteStore.open(path) as store:
        (made,) = await store.create([new_task()])
        assert (await store.get(made.id)).state is State.WAITING


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "tasks.sqlite"
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 9999")
    newer.close()
    with pytest.raises(Error, match="newer safelight"):
        Connection(path)


async def test_a_file_in_use_is_refused(store, tmp_path):
    with pytest.raises(Error, match="in use by another process") as caught:
        Connection(tmp_path / "tasks.sqlite")
    assert caught.value.code is Code.CONFLICT


_BY_INDEX = {
    "waiting": "task_waiting",
    "waiting_oldest": "task_oldest",
    "waiting_classic": "task_classic",
    "held_by": "task_worker",
    "holdings": "task_worker",
    "expired": "task_expires",
    "extend_all": "task_expires",
    "first_expiry": "task_expires",
    "due_now": "task_delayed",
    "fall_due": "PRIMARY KEY",
    "first_delayed": "task_delayed",
    "oldest_waiting": "task_oldest",
    "ended_before": "task_ended",
    "first_ended": "task_ended",
    "uploading_before": "task_uploading",
    "counts": "task_state",
    "first_uploading": "task_uploading",
    "find_by_state": "task_state",
    "find_by_recipe": "task_recipe",
    "find_by_batch": "task_batch",
    "finished_alike": "task_result",
    "tasks_by_idempotency_key": "task_idempotency",
    "task_events_after": "event_task",
    "due_deliveries": "delivery_tenant",
    "deliveries_by_number": "PRIMARY KEY",
    "tasks_by_number": "PRIMARY KEY",
    "update_tasks": "PRIMARY KEY",
    "lease_tasks": "PRIMARY KEY",
    "delete_tasks": "PRIMARY KEY",
    "extend": "PRIMARY KEY",
    "tasks_after": "PRIMARY KEY",
    "find": "task_tenant",
    "searched_to": "task_tenant",
    "searched_to_by_state": "task_state",
    "searched_to_by_recipe": "task_recipe",
    "searched_to_by_batch": "task_batch",
    "tenant_events_after": "PRIMARY KEY",
    "events_after": "PRIMARY KEY",
}


@pytest.mark.parametrize("name", _BY_INDEX)
def test_a_statement_uses_its_index_and_sorts_nothing(tmp_path, name):
    Connection(tmp_path / "tasks.sqlite").close()
    connection = sqlite3.connect(tmp_path / "tasks.sqlite")
    query = statements()[name].replace(":rows", f"({', '.join(['NULL'] * 19)})")
    parameters = ["[]"] * query.count("?")
    count = max((int(part[0]) for part in query.split("?")[1:]), default=0)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters[:count])]
    connection.close()
    assert any(_BY_INDEX[name] in step for step in plan), plan
    for step in plan:
        assert "TEMP B-TREE" not in step, plan
        assert not (step.startswith(("SCAN task", "SCAN event", "SCAN delivery")) and "INDEX" not in step), plan


async def test_a_call_that_fails_after_a_write_does_not_affect_others(store):
    def fails(transaction):
        transaction.set_meta("engine", "broken")
        raise ValueError("a mistake")

    calls = [store.create([new_task()]) for _ in range(3)]
    calls.insert(1, store._database.submit(fails))
    calls.insert(3, store._database.submit(lambda transaction: transaction.connection.run("set_meta", 1, object)))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], ValueError)
    assert isinstance(results[3], Exception)
    made = [task for place in (0, 2, 4) for task in results[place]]
    assert len({task.id for task in made}) == 3
    assert sorted(event.seq for event in (await store.events(0)).events) == sorted(task.seq for task in made)
    assert store._database.memory.engine == ""
    assert (await store.summary()).tasks["waiting"] == 3


async def test_a_call_that_changes_nothing_and_is_refused_does_not_undo_the_others(store):
    await store.accounts.create_tenant(Tenant(id="a", limits=Limits(requests=0.001)))
    memory = store._database.memory
    granted, refusal = await asyncio.gather(
        store.accounts.grant("a", Wanted(master="m", requests=1)),
        store.delete_recipe("nosuch", tenant="a"),
        return_exceptions=True,
    )
    assert (granted.requests, refusal.code) == (1, Code.NOT_FOUND)
    assert (await store.accounts.grant("a", Wanted(master="m", requests=1))).requests == 0
    assert store._database.memory is memory, "it must not be read again"


async def test_a_failed_commit_fails_all_its_calls_and_is_recovered_from(store, monkeypatch):
    (before,) = await store.create([new_task()])
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode, full.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"

    def fail(_connection):
        monkeypatch.undo()
        raise full

    monkeypatch.setattr(Connection, "commit", fail)
    with pytest.raises(Error) as caught:
        await store.create([new_task()])
    assert caught.value.code is Code.STORAGE_FULL
    (after,) = await store.create([new_task()])
    assert (after.seq, (await store.summary()).tasks["waiting"]) == (before.seq + 1, 2)


async def test_a_full_disk_is_logged_once_a_minute_even_if_commits_succeed_in_between(store, monkeypatch, caplog):
    """Small commits may find room, and one that changes nothing needs none."""
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode, full.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"

    def fail(_connection):
        raise full

    for later in (False, False, True):
        store._database._tell_full._next -= 60.0 if later else 0.0
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "commit", fail)
            for _ in range(2):
                with pytest.raises(Error):
                    await store.create([new_task()])
        await store.create([new_task()])
    told = [record for record in caplog.records if "cannot commit" in record.message and record.levelname == "ERROR"]
    assert [record.message for record in told] == [
        "The database cannot commit: The disk of the database is full: make room on it."
    ] * 2
    assert not any(record.exc_info for record in told)


async def test_a_webhook_call_whose_number_another_had_belongs_to_its_own_tenant(tmp_path):
    """There are databases whose numbers began again when they were moved."""
    path = tmp_path / "tasks.sqlite"

    async def call(store, tenant):
        await store.create([new_task(tenant=tenant, webhook="https://example.org/")])
        await store.settle([finished(lease.id) for lease in await store.lease(request())])
        for due in await store.deliveries():
            await store.settle_delivery(due.id, delivered=True)

    async with SqliteStore.open(path) as store:
        for tenant in ("a", "b"):
            await store.accounts.create_tenant(Tenant(id=tenant))
        await call(store, "a")
    with sqlite3.connect(path) as moved:
        moved.execute("DELETE FROM sqlite_sequence WHERE name = 'delivery'")
    moved.close()
    async with SqliteStore.open(path) as store:
        await call(store, "b")
        found = {tenant: (await store.webhook_calls(tenant=tenant)).calls for tenant in ("a", "b")}
        assert {tenant: len(calls) for tenant, calls in found.items()} == {"a": 0, "b": 1}
        await store.resend(found["b"][0].id, tenant="b")
        (again,) = await store.deliveries()
        assert again.task.tenant == "b"


async def test_leases_in_force_are_extended_at_a_start(tmp_path):
    now = 1000.0
    path = tmp_path / "tasks.sqlite"
    async with SqliteStore.open(path, clock=ManualClock(lambda: now)) as store:
        await store.create([new_task()])
        (lease,) = await store.lease(request(seconds=30))
    now += 3600.0
    async with SqliteStore.open(path, clock=ManualClock(lambda: now)) as store:
        now += 29.0
        await store.pass_time()
        assert (await store.get(lease.task)).state is State.WORKING
        now += 2.0
        await store.pass_time()
        task = await store.get(lease.task)
        assert (task.state, task.deaths) == (State.WAITING, 1)


async def in_queue(store, number: int) -> None:
    """Wait until `number` calls are in the queue for leases; db answers later requests later."""
    await asyncio.sleep(0)
    await store.summary()
    assert len(store._queue) == number


async def test_waiting_workers_are_served_in_order(store):
    waiting = []
    for number in range(5):
        waiting.append(asyncio.create_task(store.lease(request(f"w{number}", wait=30))))
        await in_queue(store, number + 1)
    for first in list(waiting):
        await store.create([new_task()])
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert done == {first}
        waiting.remove(first)


async def test_only_as_many_waiters_are_woken_as_there_are_tasks(store, monkeypatch):
    waiting = [asyncio.create_task(store.lease(request(f"w{number}", wait=30))) for number in range(50)]
    await in_queue(store, 50)
    asked = []
    claim = store._queue._claim
    monkeypatch.setattr(store._queue, "_claim", lambda wanted: asked.append(wanted) or claim(wanted))
    await store.create([new_task() for _ in range(3)])
    assert [len(taken) for taken in await asyncio.gather(*waiting[:3])] == [1, 1, 1]
    assert len(asked) == 3
    store.wake()
    assert await asyncio.gather(*waiting[3:]) == [[]] * 47


async def test_a_lease_of_a_cancelled_call_is_returned(store):
    await store.create([new_task()])
    call = asyncio.create_task(store.lease(request("gone")))
    await asyncio.sleep(0)  # the call has reached the database
    call.cancel()
    (lease,) = await store.lease(request("next", wait=10))
    assert call.cancelled()
    assert (await store.get(lease.task)).deaths == 0


async def test_a_lease_of_a_caller_that_left_the_queue_is_returned(store):
    call = asyncio.create_task(store.lease(request("gone", wait=30)))
    await in_queue(store, 1)
    await store.create([new_task()])
    call.cancel()
    (lease,) = await store.lease(request("next", wait=10))
    assert (await store.get(lease.task)).deaths == 0


@pytest.mark.slow
async def test_specs_are_stored_once_and_removed_with_their_tasks(tmp_path):
    now = 1000.0
    path = tmp_path / "tasks.sqlite"
    policy = Policy(keep_tasks=60)
    async with SqliteStore.open(path, clock=ManualClock(lambda: now), policy=policy) as store:
        made = await store.create([new_task() for _ in range(1500)])
        made += await store.create([new_task(recipe_digest="b" * 64) for _ in range(1500)])
        for task in made[:1500]:
            await store.cancel(task.id)
        for _ in range(5):
            now += 100.0
            await store.pass_time()
        (left,) = await store.create([new_task()])
        assert (await store.get(left.id)).recipe_digest == left.recipe_digest
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM spec").fetchone() == (2,)
    connection.close()


async def test_the_counts_equal_those_of_the_rows(store):
    made = await store.create([new_task() for _ in range(6)])
    leases = await store.lease(request(n=3))
    await store.settle([finished(leases[0].id)])
    await store.cancel(made[5].id)
    await store.delete(made[4].id)

    def compare(transaction):
        fresh, kept = memory.read(transaction.connection), transaction.memory
        assert +fresh.counts == +kept.counts == +kept.of("default").counts
        assert fresh.of("default").bytes == kept.of("default").bytes == 5 * 1000 + 10
        assert (fresh.delayed, fresh.last_event, fresh.last_task) == (kept.delayed, kept.last_event, kept.last_task)

    await store._database.submit(compare)
