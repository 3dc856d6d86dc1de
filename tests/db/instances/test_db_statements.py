"""Test that concurrent calls share a commit of PostgreSQL and its statements, with the same answers as single calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from safelight.db.postgres import PostgresStore
from safelight.db.store import Policy
from safelight.errors import Code, Error
from safelight.wire import State
from support.tasks import digest, finished, new_task, refused, request


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore.open(database, readers=1) as opened:
        await opened.create([new_task("first")])
        await opened.settle([finished(lease.id) for lease in await opened.lease(request())])
        yield opened


@pytest.mark.slow
async def test_concurrent_calls_share_their_statements(store):
    """Alone, a task takes three statements to create, three to lease and two to finish."""
    statements: list[str] = []
    session = store._database._writer.connection.server
    session.add_query_logger(lambda record: statements.append(record.query))
    tasks = 30
    await asyncio.gather(*(store.create([new_task(idempotency_key=f"key {n}")]) for n in range(tasks)))
    leases = await asyncio.gather(*(store.lease(request(f"worker {n}")) for n in range(tasks)))
    await asyncio.gather(*(store.settle([finished(lease.id)]) for (lease,) in leases))
    assert (await store.summary()).tasks["finished"] == tasks + 1
    assert len(statements) < 2 * tasks  # including those of maintenance


async def test_concurrent_creations_know_of_each_other(store):
    same, other, (third,) = await asyncio.gather(
        store.create([new_task("a", idempotency_key="k")]),
        store.create([new_task("a", idempotency_key="k"), new_task("b")]),
        store.create([new_task("first")]),
    )
    assert same[0].id == other[0].id
    assert third.state is State.FINISHED
    results = await asyncio.gather(
        *(store.create([new_task(of, idempotency_key="again")]) for of in ("c", "d")), return_exceptions=True
    )
    assert [type(each) for each in results] == [list, Error]
    assert results[1].code is Code.CONFLICT


async def test_concurrent_claims_take_the_next_tasks_in_order(store):
    made = await store.create([new_task(priority=n // 4) for n in range(12)])
    wanted = [task.id for place in (2, 1, 0) for task in made[4 * place : 4 * place + 4]]
    (back,) = await store.lease(request("gone"))
    assert back.task == wanted[0]
    answers = await asyncio.gather(
        store.lease(request("gone", n=0)),  # returns the lease
        store.cancel(wanted[1]),
        *(store.lease(request(f"worker {n}", n=2)) for n in range(5)),
    )
    taken = [lease.task for leases in answers[2:] for lease in leases]
    assert taken == [wanted[0], *wanted[2:11]]
    assert [lease.task for lease in await store.lease(request("last", n=9))] == wanted[11:]


async def test_concurrent_claims_take_turns_with_the_oldest_task(database):
    async with PostgresStore.open(database, readers=1, policy=Policy(oldest_every=4)) as store:
        made = await store.create([new_task(priority=n > 0) for n in range(9)])
        answers = await asyncio.gather(*(store.lease(request(f"worker {n}", n=2)) for n in range(4)))
        taken = [lease.task for leases in answers for lease in leases]
        assert taken == [task.id for task in (*made[1:4], made[0], *made[4:8])]


async def test_tasks_are_also_searched_by_age_only_with_several_priorities(database):
    """If all tasks have the same priority, the next one is the oldest, also among returned tasks."""
    async with PostgresStore.open(database, readers=1, policy=Policy(oldest_every=2)) as store:
        statements: list[str] = []
        made = await store.create([new_task() for _ in range(9)])
        store._database._writer.connection.server.add_query_logger(lambda record: statements.append(record.query))
        await store.lease(request("gone", n=4))
        await store.lease(request("gone", n=0))  # returns the leases
        first = [lease.task for lease in await store.lease(request("first", n=2))]
        assert first == [task.id for task in made[:2]]
        by_age = "WHERE tenant = $1 AND n >= $2"
        assert not any(by_age in text for text in statements)
        await store.create([new_task(priority=1) for _ in range(5)])
        taken = [lease.task for number in range(5) for lease in await store.lease(request(f"worker {number}", n=2))]
        assert [task.id for task in made[2:7]] == taken[1::2], "every second lease must be of the oldest task"
        assert any(by_age in text for text in statements)


async def test_a_worker_settles_while_it_asks_for_more(store):
    await store.create([new_task() for _ in range(4)])
    one, two = await store.lease(request("w", n=2))
    settled, more = await asyncio.gather(
        store.settle([finished(one.id)]), store.lease(request("w", n=2, holding=[two.id]))
    )
    assert settled[0].state is State.FINISHED
    assert (await store.get(one.task)).state is State.FINISHED
    assert len(more) == 2
    third = await store.lease(request("w", n=1, holding=[more[0].id]))  # it does not name the other lease
    assert {lease.task for lease in third} == {two.task}
    assert (await store.settle([finished(two.id)]))[0].problem["code"] == "lease_lost"


async def test_a_row_that_the_server_refuses_fails_the_call_that_made_it_and_no_other(store):
    results = await asyncio.gather(
        store.create([new_task("a", idempotency_key="a")]),
        store.create([new_task("b", priority=10**6)]),
        *(store.create([new_task(n)]) for n in range(3)),
        store.lease(request()),
        return_exceptions=True,
    )
    assert [isinstance(each, Error) for each in results] == [False, True, False, False, False, False]
    assert results[5][0].input.digest == digest("a")
    await refused(Code.NOT_FOUND, store.get("1-aaaaaaaaaa"))
    assert (await store.summary()).tasks == {
        **dict.fromkeys((await store.summary()).tasks, 0), "finished": 1, "waiting": 3, "working": 1
    }  # fmt: skip


async def test_a_commit_of_many_calls_makes_few_round_trips(store):
    """BEGIN, what the calls read, what waits, new workers, everything that is written, COMMIT."""
    await store.create([new_task() for _ in range(10)])
    held = [(await store.lease(request(f"holder {n}")))[0] for n in range(5)]
    statements: list[str] = []
    store._database._writer.connection.server.add_query_logger(lambda record: statements.append(record.query))
    created, leases, settled = await asyncio.gather(
        asyncio.gather(*(store.create([new_task(idempotency_key=f"key {n}")]) for n in range(5))),
        asyncio.gather(*(store.lease(request(f"worker {n}")) for n in range(5))),
        asyncio.gather(*(store.settle([finished(lease.id)]) for lease in held)),
    )
    assert [len(each) for each in (created, leases, settled)] == [5, 5, 5]
    begin = next(place for place, text in enumerate(statements) if text.startswith("BEGIN"))
    whole = statements[begin : statements.index("COMMIT", begin) + 1]
    assert len(whole) <= 6, whole


async def test_a_claim_takes_tasks_that_its_own_commit_has_created_after_those_that_waited(database):
    async with PostgresStore.open(database, readers=1) as store:
        before = [task.id for task in await store.create([new_task() for _ in range(2)])]
        (back,) = await store.lease(request("gone"))
        created, urgent, _, *answers = await asyncio.gather(
            store.create([new_task() for _ in range(3)]),
            store.create([new_task(priority=1)]),
            store.lease(request("gone", n=0)),  # gives it back
            *(store.lease(request(f"worker {n}", n=2)) for n in range(3)),
        )
        taken = [lease.task for leases in answers for lease in leases]
        assert taken == [urgent[0].id, *before, *(task.id for task in created)]
        assert back.task == before[0]
        assert [event.kind for event in (await store.events(0)).events].count("leased") == 7
    async with PostgresStore.open(database, readers=1) as store:
        assert {(await store.get(task)).state for task in taken} == {State.WORKING}
        assert (await store.summary()).tasks["working"] == 6
