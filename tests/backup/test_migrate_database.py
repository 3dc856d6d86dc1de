"""Test `safelight migrate --to postgresql://…`: it copies a SQLite database to a real PostgreSQL server."""

import json

import asyncpg
import pytest

from backup.test_backup import LIMIT, run
from safelight.client.access import AccessClient
from safelight.client.db import DbClient
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.master import Client
from safelight.db.postgres import PostgresStore
from safelight.db.sqlite import SqliteStore
from safelight.wire import State, TaskQuery
from safelight.wire.accounts import Scope
from support.photos import is_inverse, photo
from support.programs.system import system
from support.servers import postgres
from support.tasks import new_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with postgres.server() as running:
        yield running


async def everything(db):
    """Return the contents of a database by its public calls, without its identity and without leases."""
    tasks, page = [], await db.find(TaskQuery(limit=1000))
    tasks = [await db.get(task.id) for task in page.tasks]
    events = (await db.events(0, limit=10_000)).events
    recipes = [await db.recipe(listed.name) for listed in await db.recipes()]
    summary = await db.summary()
    references = await db.referenced()
    return {
        "tasks": [
            (task.id, task.state, task.recipe, task.input, task.outputs, task.filename, task.seq) for task in tasks
        ],
        "events": [(event.seq, event.task, event.kind, event.state) for event in events],
        "recipes": [(recipe.name, bytes(recipe.spec)) for recipe in recipes],
        "summary": (summary.tasks, summary.delayed, summary.seq),
        "references": (sorted(references.digests), sorted(references.names)),
        "batches": await db.batches(),
    }


async def another_database(url):
    """Make an empty database beside one; return its URL."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE DATABASE another")
    finally:
        await connection.close()
    return f"{url.rpartition('/')[0]}/another"


async def use(client):
    """Upload photos, one of them broken, and save a recipe."""
    for number in range(4):
        task = await client.upload(photo(number), filename=f"{number}.png", batch="first")
        assert (await client.wait(task.id, timeout=LIMIT)).state is State.FINISHED
    broken = await client.upload(photo(5)[:200], filename="broken.png")
    assert (await client.wait(broken.id, timeout=LIMIT)).state is State.FAILED
    await client.save_recipe("mine", {"outputs": {"small": {"operations": [{"op": "invert"}]}}})


async def use_again(client, waiting):
    """Assert that waiting tasks are done, and that earlier results are reused."""
    assert (await client.wait(waiting, timeout=LIMIT)).state is State.FINISHED
    task = await client.upload(photo(9), filename="after.png")
    assert (await client.wait(task.id, timeout=LIMIT)).state is State.FINISHED
    same = await client.upload(photo(1), filename="same.png")
    assert (await client.wait(same.id, timeout=LIMIT)).reused, "earlier results must be reused"
    async with client.result(same.id) as response:
        assert is_inverse(photo(1), await response.read())


async def go_back(url, file, there):
    """Move a database on PostgreSQL into a file, once, and assert that the file has everything."""
    file.parent.mkdir()
    back = ("--from", url, "--to", f"sqlite://{file}")
    told = json.loads(await run("migrate", *back, "--json"))
    assert told["task"] + told["ended"] == len(there["tasks"])
    assert "already exists" in await run("migrate", *back, status=5)
    async with SqliteStore.open(file) as store:
        assert await everything(store) == there
        (task,) = await store.create([new_task()])
        assert task.seq == there["summary"][2] + 1


async def refuse_backup(keyvaluestore, place):
    """Ask for a backup of a database that has its own, while instances are registered that were just killed."""
    async with KeyValueStoreClient.connect(keyvaluestore) as store:
        for port in range(1, 10):
            await store.set("dbendpoint", f"127.0.0.1:{port}", instance=f"dead {port}", ttl=60)
        complaint = await run("backup", place, "--keyvaluestore", keyvaluestore, status=5)
        for port in range(1, 10):
            await store.delete("dbendpoint", instance=f"dead {port}")
    assert "run pg_dump" in complaint
    assert not list(place.iterdir()), "what was refused looks like no backup"


async def test_a_running_system_moves_to_postgresql(server, tmp_path):
    url = await server.empty()
    async with system(tmp_path / "data", workers=1) as whole, Client.connect(whole.master) as client:
        await use(client)
        async with AccessClient.connect(whole.master) as access:
            made = await access.create_key("of mine", [Scope.READ])
        async with DbClient.connect(f"127.0.0.1:{whole.ports['db']}") as db:
            await whole.kill("worker-0")
            waiting = await client.upload(photo(7), filename="waiting.png")
            (cancelled,) = await db.create([new_task()])
            await db.cancel(cancelled.id)
            before = await everything(db)
        told = json.loads(await run("migrate", "--to", url, "--keyvaluestore", whole.keyvaluestore, "--json"))
        assert told["task"] + told["ended"] == len(before["tasks"])
        assert told["event"] == len(before["events"])
        complaint = await run("migrate", "--to", url, "--keyvaluestore", whole.keyvaluestore, status=5)
        assert "has data already" in complaint
    settings = {"db": ["--store", url]}
    async with system(tmp_path / "data", settings=settings) as whole:
        async with DbClient.connect(f"127.0.0.1:{whole.ports['db']}") as db:
            after = await everything(db)
            assert after == before
        await refuse_backup(whole.keyvaluestore, tmp_path / "backup")
        await whole.start("worker-0")
        async with Client.connect(whole.master) as client:
            await use_again(client, waiting.id)
        async with DbClient.connect(f"127.0.0.1:{whole.ports['db']}") as db:
            after = await everything(db)
        await go_back(url, tmp_path / "back/tasks.sqlite", after)
        async with AccessClient.connect(whole.master) as access:
            assert made.key.id in {key.id for key in await access.keys()}
        another = await another_database(url)
        said = (await run("migrate", "--from", url, "--to", another)).splitlines()
        assert f"To go back later: safelight migrate --from {another} --to {url}" in said[-1]
        async with PostgresStore.open(another) as store:
            assert await everything(store) == after
