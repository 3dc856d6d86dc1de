"""Test recipes in db: those that users have saved, and the specs of tasks."""

from __future__ import annotations

from contextlib import contextmanager

import msgspec

from safelight.db.sqlite import SqliteStore
from safelight.wire import TaskQuery
from support.tasks import digest, finished, new_task, request


def large(of: str, size: int = 200_000) -> dict:
    """Return the fields of a task whose recipe is large."""
    return {"recipe_digest": digest(of), "spec": msgspec.Raw(msgspec.json.encode({"name": of, "image": "x" * size}))}


@contextmanager
def statements(store: SqliteStore):
    """Collect the statements that a store runs."""
    ran: list[str] = []
    connection = store._database._connection._sqlite
    connection.set_trace_callback(ran.append)
    try:
        yield ran
    finally:
        connection.set_trace_callback(None)


async def test_a_large_spec_is_read_once_and_only_where_it_is_needed(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        made = await store.create([new_task(**large("poster")) for _ in range(20)])
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        with statements(store) as ran:
            assert {task.recipe_digest for task in (await store.find(TaskQuery())).tasks} == {digest("poster")}
            assert (await store.get(made[0].id)).recipe_digest == digest("poster")
        assert sum("FROM spec" in each for each in ran) == 1
        assert not any("(body) FROM spec" in each for each in ran)
        with statements(store) as ran:
            leases = await store.lease(request(n=20))
            await store.settle([finished(lease.id) for lease in leases])
        assert {bytes(lease.spec) for lease in leases} == {bytes(large("poster")["spec"])}
        assert sum("(body) FROM spec" in each for each in ran) == 1


async def test_a_spec_that_was_read_is_dropped_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr("safelight.db.commit.transaction._CACHED_BODIES", 500_000)
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        for name in ("a", "b", "c", "a"):
            await store.create([new_task(**large(name))])
            (lease,) = await store.lease(request())
            assert bytes(lease.spec) == bytes(large(name)["spec"])
            await store.settle([finished(lease.id)])
            assert store._database.memory.spec_bytes == sum(map(len, store._database.memory.spec_bodies.values()))
            assert store._database.memory.spec_bytes <= 500_000
