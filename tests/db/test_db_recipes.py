"""Test recipes in db: those that users have saved, and the specs of tasks."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import msgspec

from safelight.db.sqlite import SqliteStore
from safelight.errors import Code, Error
from safelight.wire import NamedRecipe, TaskQuery
from safelight.wire.accounts import Tenant
from safelight.wire.conditions import Condition
from support.tasks import digest, finished, new_task, refused, request


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


async def save(store, name: str, spec: bytes = b"{}", **fields) -> None:
    await store.save_recipe(NamedRecipe(name=name, spec=msgspec.Raw(spec), **fields))


async def test_recipes_are_saved_by_name(store):
    for name, spec in (("b", b'{"x":1}'), ("a", b"{}"), ("b", '{"x":"é"}'.encode())):
        await save(store, name, spec)
    listed = await store.recipes()
    assert [(recipe.name, recipe.size) for recipe in listed] == [("a", 2), ("b", 10)]
    for recipe, spec in zip(listed, ({}, {"x": "é"}), strict=True):
        saved = await store.recipe(recipe.name)
        assert msgspec.json.decode(saved.spec) == spec
        assert saved.changed == recipe.changed > 0
    await store.delete_recipe("a")
    for call in (store.delete_recipe("a"), store.recipe("a"), store.recipe("b", tenant="other")):
        await refused(Code.NOT_FOUND, call)
    assert [recipe.name for recipe in await store.recipes()] == ["b"]


async def test_each_change_of_a_recipe_has_a_time_of_its_own(store):
    changed = []
    for _ in range(20):
        await save(store, "a")
        changed.append((await store.recipes())[0].changed)
    assert changed == sorted(set(changed))


def version(changed: float) -> Condition:
    return Condition(match=f'"{changed * 1000:.0f}"')


async def test_a_recipe_is_replaced_or_deleted_only_as_the_condition_allows(store):
    new = Condition(none_match="*")

    async def put(spec: bytes, condition: Condition, name: str = "a"):
        return await store.save_recipe(NamedRecipe(name=name, spec=msgspec.Raw(spec)), condition)

    first = await put(b"1", new)
    assert first == (await store.recipes())[0]
    second = await put(b"2", version(first.changed))
    assert await put(b"2", version(first.changed)) == second  # repeated since the first answer was lost
    assert "exists" not in (await refused(Code.PRECONDITION_FAILED, put(b"3", version(first.changed)))).detail
    for condition in (new, Condition(match='"other", "1"'), Condition(match="*", none_match="*")):
        await refused(Code.PRECONDITION_FAILED, put(b"3", condition))
        await refused(Code.PRECONDITION_FAILED, store.delete_recipe("a", condition=condition))
    for condition in (version(first.changed), Condition(match="*")):
        error = await refused(Code.PRECONDITION_FAILED, put(b"3", condition, "b"))
        assert "does not exist any more" in error.detail
    assert bytes((await store.recipe("a")).spec) == b"2"
    third = await put(b"3", Condition(match=f'"0", W/"{second.changed * 1000:.0f}"'))  # as a proxy has weakened it
    await put(b"4", Condition(match="*", none_match=version(first.changed).match))
    await refused(Code.PRECONDITION_FAILED, store.delete_recipe("a", condition=version(third.changed)))
    await refused(Code.NOT_FOUND, store.delete_recipe("b", condition=Condition(match="*")))
    await store.delete_recipe("a", condition=version((await store.recipe("a")).changed))
    assert await store.recipes() == []


async def test_of_those_who_change_one_version_at_once_one_succeeds(store):
    await save(store, "a")
    seen = version((await store.recipe("a")).changed)
    saving = [store.save_recipe(NamedRecipe(name="a", spec=msgspec.Raw(b"%d" % n)), seen) for n in range(8)]
    ended = await asyncio.gather(*saving, return_exceptions=True)
    (winner,) = [n for n, each in enumerate(ended) if not isinstance(each, Error)]
    assert {each.code for each in ended if isinstance(each, Error)} == {Code.PRECONDITION_FAILED}
    assert bytes((await store.recipe("a")).spec) == b"%d" % winner


async def test_the_bytes_and_the_number_of_a_tenants_recipes_are_limited(backend, monkeypatch):
    monkeypatch.setattr("safelight.db.calls.recipes.MOST_BYTES", 100)
    monkeypatch.setattr("safelight.db.calls.recipes._MOST", 3)
    async with backend.open() as store:
        await store.accounts.create_tenant(Tenant(id="other"))
        for name in ("a", "b"):
            await save(store, name, b'"%s"' % (b"x" * 40))
        error = await refused(Code.CONFLICT, save(store, "c", b'"%s"' % (b"x" * 20)))
        assert "106 bytes together" in error.detail
        await save(store, "c", b'"%s"' % (b"x" * 10))
        await save(store, "a", b'"%s"' % (b"y" * 40))  # a recipe takes the room of the one that it replaces
        await save(store, "own", b'"%s"' % (b"x" * 90), tenant="other")
        await save(store, "a")
        error = await refused(Code.CONFLICT, save(store, "d"))
        assert "3 recipes are saved" in error.detail
        await store.delete_recipe("b")
        await save(store, "d")


async def test_the_list_of_recipes_reads_none_of_them(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite") as store:
        with statements(store) as ran:
            await store.recipes()
            await save(store, "a")
        listings = [each for each in ran if "FROM recipe" in each]
        assert len(listings) == 3
        for listing in listings:
            plan = "".join(str(row) for row in store._database._connection.rows(f"EXPLAIN QUERY PLAN {listing}"))
            assert "COVERING INDEX recipe_listed" in plan


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
