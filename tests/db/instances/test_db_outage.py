"""Test outages of PostgreSQL (killed, stopped, slow, replaced): no acknowledged data is lost, no task is charged."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from safelight.db.postgres import PostgresStore, schema
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.postgres.sessions.failures import Concerns, concerns
from safelight.db.postgres.sessions.waiting import wait
from safelight.errors import Code, Error
from safelight.sql.scripts import migrations
from safelight.wire import State, TaskQuery
from support.programs.ports import free_port
from support.programs.processes import service
from support.servers import postgres
from support.tasks import finished, new_task, request


class Load:
    """Run clients that create, lease and finish tasks at several instances, and record the acknowledgements."""

    def __init__(self, stores) -> None:
        self.stores = stores
        self.created: dict[str, str] = {}
        self.done: set[str] = set()
        self.stopped = False
        self._changed = asyncio.Event()

    async def run(self, name: str, store) -> None:
        number = 0
        while not self.stopped:
            keys = [f"{name}-{number}-{place}" for place in range(3)]
            made = await store.create([new_task(key, idempotency_key=key) for key in keys])
            self.created.update(zip(keys, (task.id for task in made), strict=True))
            leases = await store.lease(request(name, n=2))
            for answer in await store.settle([finished(lease.id) for lease in leases]):
                if answer.state is State.FINISHED:
                    self.done.add(answer.lease.rsplit("-", 2)[0])
            number += 1
            self._changed.set()

    async def more(self, count: int) -> None:
        """Wait until `count` more tasks are acknowledged."""
        wanted = len(self.created) + count
        async with asyncio.timeout(60):
            while len(self.created) < wanted:
                self._changed.clear()
                await self._changed.wait()

    async def check(self, store) -> None:
        """Assert that no task is lost, done twice or charged with a death."""
        tasks, before = {}, None
        while True:
            page = await store.find(TaskQuery(before=before, limit=1000))
            tasks |= {task.id: task for task in page.tasks}
            if (before := page.next) is None:
                break
        assert len(self.created) <= len(tasks) <= len(self.created) + 3 * 4, "one key made two tasks, or a task is lost"
        assert set(self.created.values()) <= tasks.keys()
        assert all(tasks[name].state is State.FINISHED for name in self.done)
        assert not any(task.deaths or task.errors for task in tasks.values())
        events, after = [], 0
        while (read := await store.events(after)).events:
            events += read.events
            after = read.last
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        ended = [event.task for event in events if event.kind == "finished"]
        assert len(ended) == len(set(ended)), "a task was finished twice"


async def under_load(url: str, disturb) -> None:
    async with PostgresStore.open(url, readers=1) as one, PostgresStore.open(url, readers=1) as other:
        load = Load([one, other])
        runs = [
            asyncio.create_task(load.run(f"{place}{n}", store))
            for place, store in enumerate((one, other))
            for n in "ab"
        ]
        await load.more(30)
        await disturb()
        await load.more(30)
        load.stopped = True
        await asyncio.wait_for(asyncio.gather(*runs), 60)
        await load.check(other)


@pytest.mark.slow
async def test_a_server_that_is_killed_loses_nothing_and_no_call_fails():
    with postgres.server(fsync=True) as server:
        url = await server.empty()

        async def disturb() -> None:
            server.kill()
            await asyncio.to_thread(server.start)

        await under_load(url, disturb)


def test_a_session_whose_driver_has_lost_track_is_replaced():
    """asyncpg raises this error if a session ends between two statements; it is not an InterfaceError."""
    error = asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
    assert concerns(error) is Concerns.SESSION


@pytest.mark.slow
async def test_sessions_that_are_ended_cost_only_time(database):
    async def disturb() -> None:
        admin = await asyncpg.connect(database)
        sessions = "FROM pg_stat_activity WHERE application_name = 'safelight db'"
        async with asyncio.timeout(60):  # sessions are opened on demand
            while await admin.fetchval(f"SELECT count(*) {sessions}") < 4:
                pass
        assert await admin.fetchval(f"SELECT count(pg_terminate_backend(pid)) {sessions}") >= 4
        await admin.close()

    await under_load(database, disturb)


@pytest.mark.slow
async def test_a_promoted_standby_continues():
    with postgres.server(fsync=True) as primary, postgres.server(fsync=True, made=False) as standby:
        await primary.empty()
        standby.follow(primary)
        standby.start()
        await primary.synchronous()
        url = f"postgresql://safelight@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres"
        identities = set()

        async def disturb() -> None:
            async with PostgresStore.open(url, readers=1) as store:
                identities.add((await store.events(0)).db)
            primary.kill()
            await asyncio.to_thread(standby.promote)

        await under_load(url, disturb)
        async with PostgresStore.open(url, readers=1) as store:
            identities.add((await store.events(0)).db)
        assert len(identities) == 2, "readers must notice, because event numbers may be repeated"


@pytest.mark.slow
async def test_readers_notice_that_a_dump_was_restored_even_if_event_numbers_are_used_again(postgres_server):
    server, file = postgres_server, str(postgres_server.directory / "dump")
    admin, url = await asyncpg.connect(server.url()), server.url("dumped")
    try:
        await admin.execute("CREATE DATABASE dumped")
        async with PostgresStore.open(url) as store:
            await store.create([new_task()])
            old = await store.events(0)
            server.run("pg_dump", "--format=custom", f"--file={file}", f"--dbname={url}")
            await store.create([new_task()])
            seen = await store.events(0)
        for _ in range(2):  # of two restorations, the second is noticed too
            await admin.execute("DROP DATABASE dumped")
            await admin.execute("CREATE DATABASE dumped")
            server.run("pg_restore", f"--dbname={url}", file)
            async with PostgresStore.open(url) as store:
                await store.create([new_task(), new_task()])
                again = await store.events(seen.last, known=seen.db)
                assert again.restored
                assert not (await store.events(old.last, known=old.db)).restored, "this event was in the dump"
                seen = await store.events(0)
    finally:
        await admin.close()


async def test_a_statement_that_takes_too_long_fails_only_its_call(database):
    async with PostgresStore.open(database, statement_timeout=1.0) as store:

        def slow(transaction):
            transaction.tasks("held_by", "w", 0)
            wait(transaction.connection.server.execute("SELECT pg_sleep(60)"))

        calls = [store.create([new_task()]) for _ in range(3)]
        calls.insert(1, store._submit(slow))
        results = await asyncio.gather(*calls, store._look(slow), return_exceptions=True)
        for place in (1, 4):
            assert isinstance(results[place], Error), results
            assert results[place].code is Code.UNAVAILABLE
        assert [len(results[place]) for place in (0, 2, 3)] == [1, 1, 1]
        assert (await store.summary()).tasks["waiting"] == 3


async def test_a_commit_whose_answer_was_lost_is_not_made_again(database, monkeypatch):
    script = Connection.script
    lost = []

    def lose(connection, text):
        script(connection, text)
        if text == "COMMIT" and not lost:
            lost.append(text)
            connection.server.terminate()
            raise ConnectionResetError("the answer was lost")

    async with PostgresStore.open(database) as store:
        monkeypatch.setattr(Connection, "script", lose)
        (made,) = await store.create([new_task()])
        assert lost
        assert [task.id for task in (await store.find(TaskQuery())).tasks] == [made.id]
        assert (await store.get(made.id)) == made


@pytest.mark.parametrize("again", ["asked", "answered", "refused"])
async def test_a_commit_whose_answer_was_lost_is_not_made_again_if_the_question_fails_too(database, monkeypatch, again):
    """The session is lost before the ledger has answered, or just after; or the server refuses the question."""
    script, value = Connection.script, Connection.value
    lost = []

    def lose(connection, what):
        lost.append(what)
        connection.server.terminate()
        raise ConnectionResetError(f"{what} was lost")

    def lose_script(connection, text):
        unknown = store._database._unknown
        script(connection, text)
        if text == "COMMIT" and not lost and unknown is not None and unknown.events:
            lose(connection, "the answer")
        if text == "ROLLBACK" and len(lost) == 1 and again == "answered":
            lose(connection, "the session")

    def lose_value(connection, name, *values):
        if name == "committed" and len(lost) == 1 and again == "asked":
            lose(connection, "the question")
        if name == "committed" and len(lost) == 1 and again == "refused":
            lost.append("the question")
            raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")
        return value(connection, name, *values)

    async with PostgresStore.open(database) as store:
        monkeypatch.setattr(Connection, "script", lose_script)
        monkeypatch.setattr(Connection, "value", lose_value)
        (made,) = await store.create([new_task()])
        assert len(lost) == 2
        assert [task.id for task in (await store.find(TaskQuery())).tasks] == [made.id]


async def test_a_locked_row_is_skipped_and_leased_later(database):
    async with PostgresStore.open(database) as store:
        made = await store.create([new_task() for _ in range(3)])
        other = await asyncpg.connect(database)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT * FROM task ORDER BY n LIMIT 1 FOR UPDATE")
        assert [lease.task for lease in await store.lease(request(n=2))] == [made[1].id, made[2].id]
        await transaction.rollback()
        await other.close()
        (lease,) = await store.lease(request("b", wait=30))
        assert lease.task == made[0].id


async def test_a_server_out_of_reach_is_named_without_its_password():
    with pytest.raises(Error) as caught:
        async with PostgresStore.open(f"postgresql://me:secret@127.0.0.1:{free_port()}/photos"):
            pass
    assert caught.value.code is Code.UNAVAILABLE
    assert "me@127.0.0.1" in caught.value.detail
    assert "secret" not in caught.value.detail


async def test_another_version_of_the_schema_is_refused_and_migrated_by_command(database):
    server = await asyncpg.connect(database)
    newest = len(migrations("safelight.db.postgres"))
    await server.execute("UPDATE schema_version SET version = $1", newest + 1)
    with pytest.raises(Error, match="newer safelight"):
        async with PostgresStore.open(database):
            pass
    await server.execute("SET client_min_messages = warning")
    await server.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    async with service("db", "--store", database, "--migrate") as command:
        assert await command.ended() == 0
    assert await server.fetchval("SELECT version FROM schema_version") == newest
    await server.close()
    async with PostgresStore.open(database) as store:
        assert len(await store.create([new_task()])) == 1


async def test_no_instance_finds_a_half_made_database(database):
    server, newest = await asyncpg.connect(database), len(migrations("safelight.db.postgres"))
    await server.execute("SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await server.execute("CREATE TABLE schema_version (version integer NOT NULL)")
    both = [asyncio.create_task(schema.migrate(Address(url=database))) for _ in range(2)]
    found = set()
    while not all(task.done() for task in both):
        found.add(await server.fetchval("SELECT max(version) FROM schema_version") or 0)
    assert [await task for task in both] == [newest, newest]
    assert found <= {0, newest}
    await server.close()


async def test_a_migration_that_fails_at_a_later_step_leaves_the_version_and_the_tables_as_they_were(
    database, monkeypatch
):
    server, newest = await asyncpg.connect(database), len(migrations("safelight.db.postgres"))
    steps = [*migrations("safelight.db.postgres"), "CREATE TABLE b (x integer)", "ALTER TABLE missing ADD y integer"]
    monkeypatch.setattr(schema.scripts, "migrations", lambda _package: steps)
    with pytest.raises(Error, match='cannot be migrated: relation "missing" does not exist'):
        await schema.migrate(Address(url=database))
    assert await server.fetchval("SELECT version FROM schema_version") == newest
    assert await server.fetchval("SELECT to_regclass('b') IS NULL")
    await server.close()
