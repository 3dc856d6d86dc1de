"""Test that several db instances with one PostgreSQL database act as one."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import msgspec
import pytest

from safelight.client.db import DbClient
from safelight.db.postgres import PostgresStore
from safelight.db.postgres import database as database_module
from safelight.db.postgres.sessions.connection import statements
from safelight.db.postgres.sessions.waiting import wait
from safelight.errors import Code, Error
from safelight.wire import Heartbeat, NamedRecipe, State, WorkerInfo
from safelight.wire.accounts import Limits, Tenant, Wanted
from support.programs.processes import service
from support.programs.until import until
from support.tasks import finished, new_task, request

pytestmark = pytest.mark.slow


@pytest.fixture
async def instances(database):
    """Return a function that opens another instance."""
    async with AsyncExitStack() as stack:

        async def open_one(**options) -> PostgresStore:
            return await stack.enter_async_context(PostgresStore.open(database, readers=2, **options))

        yield open_one


async def read_all(store, total: int) -> list[int]:
    seen: list[int] = []
    after = 0
    while len(seen) < total:
        page = await store.events(after, limit=50, wait=30)
        seen += [event.seq for event in page.events]
        after = page.last
    return seen


async def test_no_reader_misses_an_event_whichever_instance_commits(instances):
    stores = [await instances() for _ in range(3)]
    readers = [asyncio.create_task(read_all(store, 3 * 25 * 4)) for store in stores for _ in range(2)]

    async def load(store) -> None:
        for _ in range(25):
            await store.create([new_task(), new_task()])
            for lease in await store.lease(request(str(id(store)), n=1)):
                await store.settle([finished(lease.id)])

    await asyncio.gather(*map(load, stores))
    numbers = await asyncio.wait_for(asyncio.gather(*readers), 60)
    assert numbers[0] == sorted(set(numbers[0]))
    assert all(each == numbers[0] for each in numbers)


async def test_a_commit_wakes_waiters_at_other_instances(instances):
    one, other = await instances(), await instances()
    lease = asyncio.create_task(other.lease(request(wait=60)))
    page = asyncio.create_task(other.events(0, wait=60))
    call = asyncio.create_task(other.deliveries(wait=60))
    while not (await one.summary()).workers:
        pass
    (made,) = await one.create([new_task(webhook="http://127.0.0.1:1/")])
    (leased,) = await asyncio.wait_for(lease, 30)
    assert leased.task == made.id
    assert (await asyncio.wait_for(page, 30)).events[0].task == made.id
    await one.settle([finished(leased.id)])
    assert [each.task.id for each in await asyncio.wait_for(call, 30)] == [made.id]


async def test_a_commit_notifies_once_and_only_while_somebody_waits(instances, database):
    commits: list[int] = []
    one = await instances(observe=lambda calls, events: commits.append(calls) if events else None)
    other = await instances()
    heard: list[str] = []
    listener = await asyncpg.connect(database)
    await listener.add_listener("safelight", lambda *given: heard.append(given[-1]))
    for _ in range(3):
        await one.create([new_task(), new_task()])
    await listener.fetchval("SELECT 1")
    assert heard == []
    await asyncio.gather(other.events(0, wait=5), other.events(0, wait=5))  # from now on, the instance listens
    commits.clear()
    await asyncio.gather(*(one.create([new_task(), new_task()]) for _ in range(5)))
    await listener.fetchval("SELECT 1")
    assert len(heard) == len(commits) > 0
    assert sum(commits) == 5
    await listener.close()


@pytest.mark.parametrize("asks", ["lease", "heartbeat"])
async def test_the_death_of_a_lease_that_never_arrived_is_taken_back_at_any_instance(instances, asks):
    """The worker is heard by another instance than the one that ended the lease, or by one that started later."""
    one, other = await instances(), await instances()
    made = await one.create([new_task() for _ in range(2)])
    await one.lease(request("cut off", n=2, seconds=0.05))
    assert len(await other.lease(request("other", n=1, wait=30))) == 1
    await until(lambda: _deaths(other, made, [1, 1]))
    for store in (other, await instances(), one):  # only the first takes it back
        if asks == "lease":
            await store.lease(request("cut off", n=1))
        else:
            await store.heartbeat(Heartbeat(worker=WorkerInfo(id="cut off"), holding=[]))
        assert await _deaths(one, made, [0, 0])
    kinds = [event.kind for event in (await one.events(0)).events]
    assert kinds.count("excused") == 2


async def test_an_instance_that_starts_later_takes_such_a_death_back(instances):
    one = await instances()
    made = await one.create([new_task()])
    await one.lease(request("cut off", seconds=0.05))
    await until(lambda: _deaths(one, made, [1]))
    await (await instances()).lease(request("cut off", n=1))
    assert await _deaths(one, made, [0])


async def _deaths(store, tasks, wanted: list[int]) -> bool:
    return [(await store.get(task.id)).deaths for task in tasks] == wanted


async def test_racing_creations_with_one_key_make_one_task(instances):
    stores = [await instances() for _ in range(3)]
    made = await asyncio.gather(*(store.create([new_task("a", idempotency_key="k")]) for store in stores * 8))
    assert len({task.id for (task,) in made}) == 1


async def test_limits_are_exact_whichever_instance_is_asked(instances):
    stores = [await instances() for _ in range(3)]
    await stores[0].accounts.change_tenant(Tenant(id="default", limits=Limits(waiting=10)))
    calls = (store.create([new_task()]) for store in stores * 10)
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in results if isinstance(each, Error)]
    assert {each.code for each in refused} == {Code.TOO_MANY_REQUESTS}
    assert len(results) - len(refused) == 10


async def test_no_task_is_leased_twice_and_a_lease_is_known_everywhere(instances):
    stores = [await instances() for _ in range(3)]
    made = await stores[0].create([new_task() for _ in range(60)])
    calls = (store.lease(request(f"{place} {n}", n=4)) for n in range(6) for place, store in enumerate(stores))
    leases = [lease for taken in await asyncio.gather(*calls) for lease in taken]
    assert sorted(lease.task for lease in leases) == sorted(task.id for task in made)
    worker = WorkerInfo(id="0 0")
    mine = [lease.id for lease in leases[:4]]
    assert (await stores[2].heartbeat(Heartbeat(worker=worker, holding=mine))).lost == []
    assert (await stores[1].settle([finished(mine[0])]))[0].state is State.FINISHED
    await stores[2].cancel(mine[1])
    assert (await stores[0].settle([finished(mine[1])]))[0].problem["code"] == "lease_lost"
    assert len((await stores[1].summary()).workers) == 18


async def test_a_saved_recipe_is_visible_at_other_instances_at_once(instances):
    one, other = await instances(), await instances()
    await other.summary()
    await one.accounts.create_tenant(Tenant(id="acme", weight=3.0))
    await one.save_recipe(NamedRecipe(tenant="acme", name="own", spec=msgspec.Raw(b"{}")))
    (made,) = await other.create([new_task(tenant="acme")])
    assert [recipe.name for recipe in await other.recipes(tenant="acme")] == ["own"]
    assert [use.tasks["waiting"] for use in await one.accounts.use()] == [1, 0]
    await one.delete(made.id)
    await other.accounts.delete_tenant("acme")
    with pytest.raises(Error):
        await one.create([new_task(tenant="acme")])


async def test_masters_share_limits_whichever_instance_they_ask(instances):
    one, other = await instances(), await instances()
    await one.accounts.create_tenant(Tenant(id="few", limits=Limits(uploads=2, requests=0.001)))
    await other.summary()
    assert (await one.accounts.grant("few", Wanted(master="a", uploads=1, new=1, requests=1))).requests == 1
    granted = await other.accounts.grant("few", Wanted(master="b", uploads=2, new=2, requests=1))
    assert (granted.uploads, granted.in_progress, granted.requests) == (1, 2, 0)
    third = await instances()  # starts from the ledger's last complete entry
    assert (await third.accounts.grant("few", Wanted(master="c", uploads=1, new=1))).uploads == 0


async def test_one_expires_leases_and_another_takes_over_when_it_dies(instances, database):
    first = await instances()
    await first.pass_time()
    second = await instances()
    await second.pass_time()
    assert (first._database.maintains, second._database.maintains) == (True, False)
    (made,) = await second.create([new_task()])
    await second.lease(request("gone", seconds=0.5))
    page = await second.events(2, wait=30)
    assert [event.kind for event in page.events] == ["expired"]

    await first._database.close()  # ends its session, like a kill of its process
    await second.lease(request("gone too", seconds=0.5))
    kinds: list[str] = []
    while "expired" not in kinds:
        page = await second.events(page.last, wait=30)
        kinds += [event.kind for event in page.events]
    assert (await second.get(made.id)).state is State.QUARANTINED
    assert second._database.maintains


async def test_another_takes_over_from_an_instance_that_is_suspended(instances, database, monkeypatch):
    """The suspended one goes on as an ordinary instance when it runs again."""
    async with service("db", "--store", database) as first, DbClient.connect(await first.address()) as client:
        await client.create([new_task()])
        second = await instances()
        for _ in range(3):
            await second.pass_time()
        assert not second._database.maintains
        first.send(signal.SIGSTOP)
        try:
            monkeypatch.setattr(database_module, "SUSPENDED", 3.0)
            (lease,) = await second.lease(request("gone", seconds=0.5))
            kinds, last = [], 0
            async with asyncio.timeout(60):
                while "expired" not in kinds:
                    page = await second.events(last, wait=30)
                    kinds, last = [*kinds, *(event.kind for event in page.events)], page.last
            assert second._database.maintains
        finally:
            first.send(signal.SIGCONT)
        assert (await client.get(lease.task)).state is State.WAITING
        (made,) = await client.create([new_task()])
        assert (await second.get(made.id)).state is State.WAITING
        for _ in range(3):
            await second.pass_time()
        assert second._database.maintains


async def test_times_are_those_of_the_database(instances, database, monkeypatch):
    store = await instances()
    monkeypatch.setattr(time, "time", lambda: 1.0)  # the clock of the instance's machine must not matter
    server = await asyncpg.connect(database)
    try:
        before = await server.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        (made,) = await store.create([new_task()])
        (lease,) = await store.lease(request(seconds=30))
        after = await server.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    finally:
        await server.close()
    assert before - 0.001 <= made.created <= after
    assert before + 29.999 <= lease.expires <= after + 30


async def test_only_an_instance_that_is_alone_extends_leases(database):
    server = await asyncpg.connect(database)
    expires = "SELECT expires FROM task"
    async with PostgresStore.open(database) as store:
        await store.create([new_task()])
        await store.lease(request(seconds=30))
        granted = await server.fetchval(expires)
        async with PostgresStore.open(database):
            assert await server.fetchval(expires) == granted
    async with PostgresStore.open(database):
        assert await server.fetchval(expires) > granted
    await server.close()


@asynccontextmanager
async def old_snapshot(database):
    """Hold open a transaction that sees the current tasks."""
    old = await asyncpg.connect(database)
    try:
        async with old.transaction(isolation="repeatable_read"):
            await old.fetchval("SELECT count(*) FROM task")
            yield
    finally:
        await old.close()


async def test_claims_skip_dead_rows_that_an_old_snapshot_keeps(instances, database):
    store = await instances()
    async with old_snapshot(database):
        await _check_claims(store)


async def _check_claims(store):
    for _ in range(8):
        await store.create([new_task() for _ in range(250)])
        leases = await store.lease(request(n=250))
        await store.settle([finished(lease.id) for lease in leases])
    await store.create([new_task()])

    def blocks(name: str, *values: object) -> int:
        """Return how many blocks a statement reads."""

        def explain(transaction) -> int:
            text = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statements()[name]}"
            plan = json.loads(wait(transaction.connection.server.fetchval(text, *values)))[0]["Plan"]
            return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

        return explain

    memory = store._database._writer.memory
    lane = memory.lanes["default"].by_priority[0, 1]
    from_the_head = await store._submit(blocks("waiting", "default", 0, 1, 0, 1))
    forward = await store._submit(blocks("waiting", "default", 0, 1, lane.position, 1))
    held_ever = await store._submit(blocks("held_by", "w", 0))
    held = await store._submit(blocks("held_by", "w", memory.held_since["w"]))
    since = json.dumps([("w", memory.held_since["w"])])
    keys, alike = json.dumps([("default", "unknown")]), json.dumps([("default", "a" * 64, 1)])
    ahead = await store._submit(blocks("read_ahead", keys, alike, memory.engine, [1], since))
    assert from_the_head > 10 * forward, "the snapshot keeps no dead rows, so this test shows nothing"
    assert held_ever > 5 * held, "the snapshot keeps no dead rows, so this test shows nothing"
    assert forward < 10
    assert held < 20
    assert ahead < 80, "expected 22, or 41 after the server has analysed the tables"
    assert len(await store.lease(request(n=5))) == 1


async def test_no_other_index_serves_a_look_up_by_number_or_key(instances, database):
    """While few tasks are alive, the planner treats any index as a single page, and would read all of it."""
    await instances()
    server = await asyncpg.connect(
        database, server_settings={"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
    )

    async def plan(name: str, *values: object) -> str:
        return "\n".join(line for (line,) in await server.fetch(f"EXPLAIN {statements()[name]}", *values))

    for name in ("update_tasks", "end_tasks"):
        arrays = [[]] * (1 + max(int(number) for number in re.findall(r"\$([0-9]+)", statements()[name])))
        found = await plan(name, *arrays[1:])
        assert "Index Cond: (n = ANY (ARRAY[new.n]))" in found, "each row must be looked up by its number"
        assert "Join Filter" not in found, "new rows must not be compared with all others of the commit"
    assert "task_pkey" in await plan("live_by_number", [1])
    assert "task_idempotency" in await plan("tasks_by_idempotency_key", "[]")
    await server.execute("ALTER TABLE task DROP CONSTRAINT task_pkey; DROP INDEX task_idempotency")
    assert "Seq Scan on task" in await plan("live_by_number", [1])
    assert "Seq Scan on task" in await plan("tasks_by_idempotency_key", "[]")
    await server.close()


async def test_no_other_index_serves_a_look_up_among_tasks_that_have_ended(instances, database):
    """A new partition has no statistics, so the planner would use any index and read all of it."""
    store = await instances()
    await store.create([new_task()])  # creates the partition
    server = await asyncpg.connect(
        database, server_settings={"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
    )

    async def plan(name: str, *values: object) -> str:
        return "\n".join(line for (line,) in await server.fetch(f"EXPLAIN {statements()[name]}", *values))

    looks = {
        "finished_alike": (("[]", "engine"), "input_spec_engine_tenant_idx"),
        "ended_by_number": (([1],), "_n_idx"),
        "tasks_by_idempotency_key": (("[]",), "idempotency_key_tenant_idx"),
    }
    for name, (values, index) in looks.items():
        assert index in await plan(name, *values), name
    await server.execute("DROP INDEX ended_result, ended_n, ended_idempotency")
    for name, (values, _) in looks.items():
        assert "Seq Scan on ended_" in await plan(name, *values), name
    await server.close()


async def test_a_task_that_comes_back_behind_the_position_is_leased_at_every_instance(instances):
    one, other = await instances(), await instances()
    made = await one.create([new_task() for _ in range(4)])
    leases = await one.lease(request("a", n=4))
    assert await other.lease(request("b")) == []
    await one.cancel(made[1].id)
    await one.retry(made[1].id)
    await other.lease(request("a", n=0, holding=[leases[0].id, leases[3].id]))  # returns the third lease
    taken = [lease.task for lease in await other.lease(request("b", n=9))]
    assert taken == [made[1].id, made[2].id]


async def test_the_planner_knows_tables_that_have_just_grown(instances, database):
    """Without statistics, the planner reads all rows of a tenant for each created task."""
    store = await instances()
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("ALTER TABLE task SET (autovacuum_enabled = false)")  # otherwise it might come first
        await store.create([new_task() for _ in range(300)])

        async def analysed() -> bool:
            await store.pass_time()
            query = "SELECT last_analyze FROM pg_stat_user_tables WHERE relname = 'task'"
            return await connection.fetchval(query) is not None

        await until(analysed, timeout=30)
    finally:
        await connection.close()
