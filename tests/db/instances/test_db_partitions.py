"""Test that ended tasks and events leave PostgreSQL in whole partitions: no row is deleted, so none is left dead."""

from __future__ import annotations

import asyncpg
import pytest

from db.leases.test_db_clock import DAY, JumpingClock
from safelight.db.postgres import PostgresStore
from safelight.db.store import Policy
from safelight.wire import State, TaskQuery
from support.programs.until import until
from support.tasks import finished, new_task, request

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
