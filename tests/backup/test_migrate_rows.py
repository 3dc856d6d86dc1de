"""Test what the move of a database to a real PostgreSQL server and back keeps, besides the tasks themselves."""

import os
import sqlite3
from contextlib import closing

import asyncpg
import msgspec
import pytest

from safelight.cli.backup.archive import Database
from safelight.cli.backup.postgres import _compare, load, unload
from safelight.db.postgres import PostgresStore
from safelight.db.sqlite import SqliteStore
from safelight.errors import Error
from safelight.steady import ManualClock
from safelight.wire import Failed, Failure, Heartbeat, TaskQuery, WorkerInfo
from safelight.wire.accounts import AuditEntry, Tenant
from support.servers import postgres
from support.tasks import finished, new_task, request

pytestmark = pytest.mark.slow

DAY = 86400
TEXT = "a\0b \U0010ffff \U0010ffff0 \\u0000"
"""What PostgreSQL cannot store, what escapes it, and what looks like it."""


@pytest.fixture(scope="module")
def server():
    with postgres.server() as running:
        yield running


@pytest.fixture
async def url(server):
    return await server.empty()


async def move(file, url):
    """Copy the file of a stopped db into an empty database."""
    database = Database(file, readonly=False)
    try:
        await load(database, url)
    finally:
        database.close()


async def call(store, tenant):
    """Finish a task and its webhook call; return the number of the call."""
    await store.create([new_task(tenant=tenant, webhook=f"https://{tenant}.example/", filename=TEXT)])
    (lease,) = await store.lease(request())
    await store.settle([finished(lease.id)])
    (due,) = await store.deliveries(wait=10.0)
    await store.settle_delivery(due.id, delivered=True)
    return int(due.id.partition("-")[0])


async def calls(store, tenant):
    """Return the numbers and addresses of a tenant's webhook calls, oldest first."""
    page = await store.webhook_calls(tenant=tenant, outcome="delivered")
    return [(int(each.id), each.url) for each in reversed(page.calls)]


async def test_the_webhook_calls_of_tenants_stay_apart(url, tmp_path):
    """All calls are settled before each move, so that only their records show which numbers were given."""
    async with SqliteStore.open(tmp_path / "old.sqlite") as store:
        for tenant in ("a", "b"):
            await store.accounts.create_tenant(Tenant(id=tenant))
        given = [await call(store, "a") for _ in range(3)]
    await move(tmp_path / "old.sqlite", url)
    async with PostgresStore.open(url, readers=1) as store:
        given.append(await call(store, "b"))
        assert await calls(store, "a") == [(n, "https://a.example/") for n in given[:3]]
        assert await calls(store, "b") == [(given[3], "https://b.example/")]
    await unload(url, tmp_path / "back.sqlite")
    async with SqliteStore.open(tmp_path / "back.sqlite") as store:
        given.append(await call(store, "a"))
        assert await calls(store, "b") == [(given[3], "https://b.example/")]
        assert await calls(store, "a") == [(n, "https://a.example/") for n in (*given[:3], given[4])]
    assert given == sorted(set(given))


async def test_numbers_of_rows_that_are_gone_are_not_given_again(url, tmp_path):
    async def forget(store, of):
        """Append to the audit log and delete what it has; return the last number."""
        await store.accounts.append_audit([AuditEntry(action="look", who=of)] * 3)
        last = (await store.accounts.audit()).last
        await store._do(lambda transaction: transaction.connection.run("delete_old_audit", 2.0**40, 100))
        assert (await store.accounts.audit()).entries == []
        return last

    async with SqliteStore.open(tmp_path / "old.sqlite") as store:
        assert await forget(store, "one") == 3
    await move(tmp_path / "old.sqlite", url)
    async with PostgresStore.open(url, readers=1) as store:
        assert await forget(store, "two") == 6
    if os.geteuid() == 0:  # what root unloads must belong to the user of the service
        os.chown(tmp_path, 65534, 65533)
    back = tmp_path / "below" / "back.sqlite"
    await unload(url, back)
    assert back.stat().st_uid == back.parent.stat().st_uid == tmp_path.stat().st_uid
    async with SqliteStore.open(back) as store:
        assert await forget(store, "three") == 9


async def test_an_event_is_counted_once_in_the_statistics(url, tmp_path):
    async def created(store):
        return sum(slot.counts.created for slot in await store.statistics(span=DAY, step=300))

    async with SqliteStore.open(tmp_path / "old.sqlite") as store:
        await store.create([new_task() for _ in range(5)])
        assert await created(store) == 5
    await move(tmp_path / "old.sqlite", url)
    async with PostgresStore.open(url, readers=1) as store:
        assert await created(store) == 5
        await store.create([new_task()])
        assert await created(store) == 6
    await unload(url, tmp_path / "back.sqlite")
    async with SqliteStore.open(tmp_path / "back.sqlite") as store:
        assert await created(store) == 6


async def test_every_text_is_kept(url, tmp_path):
    spec = msgspec.json.encode({"note": TEXT})

    async def check(store):
        (task,) = (await store.find(TaskQuery(batch=TEXT))).tasks
        assert (task.filename, task.failure.detail) == (TEXT, TEXT)
        assert bytes((await store.spec(task.id)).spec) == spec
        assert [made.filename for made in (await store.webhook_calls()).calls] == [TEXT]
        assert [event.batch for event in (await store.events(0, task=task.id)).events] == [TEXT] * 3

    async with SqliteStore.open(tmp_path / "old.sqlite") as store:
        await call(store, "default")
        fields = {"filename": TEXT, "batch": TEXT, "idempotency_key": TEXT, "spec": msgspec.Raw(spec)}
        await store.create([new_task(recipe_digest="a" * 64, **fields)])
        (lease,) = await store.lease(request())
        failure = Failure(code="damaged_image", detail=TEXT)
        await store.settle([Failed(lease=lease.id, failure=failure, permanent=True)])
        await check(store)
    await move(tmp_path / "old.sqlite", url)
    async with PostgresStore.open(url, readers=1) as store:
        await check(store)
    await unload(url, tmp_path / "back.sqlite")
    async with SqliteStore.open(tmp_path / "back.sqlite") as store:
        await check(store)


async def test_the_death_of_a_lease_that_never_arrived_is_taken_back_after_a_move(url, tmp_path):
    now = 1e9
    async with SqliteStore.open(tmp_path / "old.sqlite", clock=ManualClock(lambda: now)) as store:
        (made,) = await store.create([new_task()])
        assert len(await store.lease(request("w", seconds=30))) == 1
        now += 31.0
        await store.pass_time()
        assert (await store.get(made.id)).deaths == 1
    await move(tmp_path / "old.sqlite", url)
    await unload(url, tmp_path / "back.sqlite")
    async with SqliteStore.open(tmp_path / "back.sqlite") as store:
        await store.heartbeat(Heartbeat(worker=WorkerInfo(id="w"), holding=[]))
        assert (await store.get(made.id)).deaths == 0


async def test_the_sums_of_many_rows_do_not_overflow(url, tmp_path):
    """Two rows with the latest times stand for the millions whose sums of ordinary times have more than 64 bits."""
    async with SqliteStore.open(tmp_path / "old.sqlite") as store:
        for _ in range(2):
            await call(store, "default")
        await store.create([new_task() for _ in range(2)])
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as file, file:
        file.execute("UPDATE task SET changed = ?", [2**62])
        file.execute("UPDATE event SET at = ?", [2**62])
        file.execute("UPDATE spec SET until = ?", [2**62])
    await move(tmp_path / "old.sqlite", url)
    assert (await unload(url, tmp_path / "back.sqlite"))["ended"] == 2


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_copy_with_other_times_is_noticed(url, tmp_path, sign):
    """The rows of a PostgreSQL server could be others than those that it was given, but their sums would differ."""
    async with SqliteStore.open(tmp_path / "old.sqlite") as store:
        await store.create([new_task() for _ in range(2)])
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as file, file:
        file.execute("UPDATE task SET changed = ? * (changed + n)", [sign])
    await move(tmp_path / "old.sqlite", url)
    server, database = await asyncpg.connect(url), Database(tmp_path / "old.sqlite")
    try:
        assert await _compare(server, database, "task") == 2
        for change in ("changed + 1", "changed + 4294967296"):
            await server.execute(f"UPDATE task SET changed = {change} WHERE n = 1")
            with pytest.raises(Error, match="The copy of the table task differs"):
                await _compare(server, database, "task")
            await server.execute(f"UPDATE task SET changed = 2 * changed - ({change}) WHERE n = 1")
            assert await _compare(server, database, "task") == 2
    finally:
        await server.close()
        database.close()
