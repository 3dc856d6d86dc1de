"""Test that ended tasks and events leave PostgreSQL in whole partitions: no row is deleted, so none is left dead."""

from __future__ import annotations

import asyncpg
import pytest

from db.leases.test_db_clock import DAY, JumpingClock
from safelight.db.postgres import PostgresStore
from safelight.db.store import Policy
from safelight.wire import State, TaskQuery
from safelight.wire.accounts import Scope, Session, Wanted
from support.programs.until import until
from support.tasks import digest, failed, finished, new_task, request

REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'a row of % is deleted', TG_TABLE_NAME; END $$;
    CREATE TRIGGER refuse BEFORE DELETE ON ended FOR EACH ROW EXECUTE FUNCTION refuse();
    CREATE TRIGGER refuse BEFORE DELETE ON event FOR EACH ROW EXECUTE FUNCTION refuse();
"""
PARTITIONS = (
    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN ('ended'::regclass, 'event'::regclass)"
)
REMAINS = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^(ended|event)_[0-9]+$'"


async def names(server: asyncpg.Connection, query: str) -> set[str]:
    return {row[0] for row in await server.fetch(query)}


@pytest.mark.slow
async def test_old_tasks_and_events_are_dropped_with_their_partitions(database):
    clock, policy = JumpingClock(), Policy(keep_tasks=30 * DAY, keep_events=30 * DAY)
    server = await asyncpg.connect(database)
    try:
        async with PostgresStore.open(database, policy=policy, clock=clock) as store:
            await server.execute(REFUSE)

            async def finish() -> str:
                await store.create([new_task()])
                (lease,) = await store.lease(request(n=1))
                assert (await store.settle([finished(lease.id)]))[0].state is State.FINISHED
                return lease.task

            first = await finish()
            old = await names(server, PARTITIONS)
            assert {name.partition("_")[0] for name in old} == {"ended", "event"}
            clock.offset += 40 * DAY
            second = await finish()
            assert len(await names(server, PARTITIONS) - old) == 2
            await store.confirm_clock()

            async def dropped() -> bool:
                await store.pass_time()
                return not (old & await names(server, REMAINS))

            await until(dropped, timeout=60)
            assert [task.id for task in (await store.find(TaskQuery())).tasks] == [second]
            kinds = [event.kind for event in (await store.events(0)).events if event.task == first]
            assert kinds == ["deleted"]
    finally:
        await server.close()


@pytest.mark.slow
async def test_after_the_clock_went_back_leases_expire_and_delayed_tasks_fall_due(database):
    clock, policy = JumpingClock(), Policy(retry_first=0.5, retry_longest=0.5)
    async with PostgresStore.open(database, policy=policy, clock=clock) as store:
        clock.offset += 40 * DAY
        await store.create([new_task(), new_task()])
        delayed, early = await store.lease(request("gone", n=2, seconds=0.5))
        await store.settle([failed(delayed.id)])
        await store.accounts.grant("default", Wanted(master="gone", uploads=1, new=1))
        clock.offset -= 40 * DAY
        now = clock.wall()
        session = Session(id=digest(0), tenant="default", scopes=[Scope.READ], created=now, expires=now + 3600)
        assert await store.accounts.session((await store.accounts.create_session(session)).id) == session
        granted = await store.accounts.grant("default", Wanted(master="alive", uploads=1, new=1))
        assert granted.in_progress == 1, "uploads that the wrong clock has counted still count"
        await store.create([new_task()])
        (late,) = await store.lease(request("gone too", seconds=0.5))

        expired: set[str] = set()
        last = 0
        while expired != {early.task, late.task}:
            page = await store.events(last, wait=30)
            assert page.events, "a lease of the wrong clock stays in force"
            expired |= {event.task for event in page.events if event.kind == "expired"}
            last = page.last
        taken: set[str] = set()
        while len(taken) < 3:
            leases = await store.lease(request("alive", n=3, wait=30, holding=[]))
            assert leases, "a delay of the wrong clock lasts"
            await store.settle([finished(lease.id) for lease in leases])
            taken |= {lease.task for lease in leases}


@pytest.mark.slow
async def test_webhook_calls_of_a_clock_that_was_ahead_fall_due_after_a_restart(database):
    """The ledger shows that the clock went back while no instance ran."""
    clock = JumpingClock()
    clock.offset += 40 * DAY
    async with PostgresStore.open(database, clock=clock) as store:
        await store.create([new_task(webhook="https://example.org/")])
        (lease,) = await store.lease(request())
        await store.settle([finished(lease.id)])
        (call,) = await store.deliveries()
        await store.settle_delivery(call.id, delivered=False, retry_after=1.0)
    clock.offset -= 40 * DAY
    async with PostgresStore.open(database, clock=clock) as store:
        await store.pass_time()
        clock.passed += 1.1 * DAY
        (again,) = await store.deliveries()
        assert again.task.id == call.task.id
