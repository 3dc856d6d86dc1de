"""Test the contract of a key-value store with every backend."""

from __future__ import annotations

import asyncio
import time

import pytest

from safelight.errors import Code, Error


async def test_value_is_read_back(store):
    entry = await store.set("dbendpoint", "10.0.0.1:8001")
    assert (entry.key, entry.value, entry.instance, entry.expires) == ("dbendpoint", "10.0.0.1:8001", "", None)
    assert await store.get("dbendpoint") == "10.0.0.1:8001"


async def test_unknown_key_is_not_found(store):
    with pytest.raises(Error, match="Key not found") as caught:
        await store.get("nothing")
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("key", ["a/b", "a b", "ключ", "a%2Fb", "a?b=c", "x" * 200])
async def test_any_printable_key(store, key):
    await store.set(key, "value")
    assert await store.get(key) == "value"
    assert [entry.key for entry in (await store.entries(key)).entries] == [key]
    assert await store.delete(key) == 1


@pytest.mark.parametrize(
    ("key", "value", "options", "code"),
    [
        ("x" * 201, "v", {}, Code.INVALID_REQUEST),
        ("a\nb", "v", {}, Code.INVALID_REQUEST),
        ("k", "v", {"instance": "a\tb"}, Code.INVALID_REQUEST),
        ("k", "v", {"instance": "x" * 201}, Code.INVALID_REQUEST),
        ("k", "v", {"ttl": 0.0}, Code.INVALID_REQUEST),
        ("k", "v", {"ttl": -1.0}, Code.INVALID_REQUEST),
        ("k", "v" * 65537, {}, Code.TOO_LARGE),
        ("k", "\u20ac" * 30000, {}, Code.TOO_LARGE),
    ],
)
async def test_limits(store, key, value, options, code):
    with pytest.raises(Error) as caught:
        await store.set(key, value, **options)
    assert caught.value.code is code
    assert (await store.entries()).entries == []


async def test_largest_value(store):
    await store.set("k", "\u20ac" * 21845)
    assert await store.get("k") == "\u20ac" * 21845


@pytest.mark.parametrize("max_entries", [2])
async def test_full_store_refuses_new_entries_only(store):
    await store.set("a", "1")
    await store.set("b", "1")
    with pytest.raises(Error, match="--max-entries") as caught:
        await store.set("c", "1")
    assert caught.value.code is Code.STORAGE_FULL
    await store.set("a", "2")
    await store.delete("b")
    await store.set("c", "1")
    assert [entry.key for entry in (await store.entries()).entries] == ["a", "c"]


@pytest.mark.parametrize("max_entries", [2])
async def test_entries_without_an_instance_take_no_room_of_those_with_one(store):
    for key in ("a", "b"):
        await store.set(key, "1")
    for instance in ("x", "y"):
        await store.set("c", "1", instance=instance, ttl=60)
    for full in ({"instance": "z"}, {}):
        with pytest.raises(Error, match="--max-entries"):
            await store.set("d", "1", **full)


async def test_instances_stand_side_by_side_and_take_turns(store):
    for instance in ("b", "a", "c"):
        await store.set("dbendpoint", f"host-{instance}", instance=instance, ttl=60)
    page = await store.entries("dbendpoint")
    assert [entry.instance for entry in page.entries] == ["a", "b", "c"]
    assert {await store.get("dbendpoint") for _ in range(3)} == {"host-a", "host-b", "host-c"}


async def test_a_value_without_instance_replaces_all_instances_and_is_replaced_by_one(store):
    await store.set("k", "1", instance="a")
    await store.set("k", "2", instance="b")
    await store.set("k", "plain")
    assert [entry.value for entry in (await store.entries("k")).entries] == ["plain"]
    await store.set("k", "3", instance="a")
    assert [entry.value for entry in (await store.entries("k")).entries] == ["3"]


async def test_every_change_raises_the_revision_by_one(store):
    start = (await store.entries()).revision
    first = await store.set("k", "1", instance="a")
    second = await store.set("k", "2", instance="b")
    await store.delete("k")
    await store.delete("k")  # the key does not exist, so nothing changes
    assert (first.revision, second.revision) == (start + 1, start + 2)
    assert (await store.entries()).revision == start + 3


async def test_delete_one_instance_or_all(store):
    for instance in ("a", "b", "c"):
        await store.set("k", instance, instance=instance)
    assert await store.delete("k", instance="a") == 1
    assert await store.delete("k", instance="a") == 0
    assert await store.delete("k") == 2
    assert (await store.entries()).entries == []


async def test_a_renewal_wakes_no_watcher(store):
    first = await store.set("k", "v", instance="a", ttl=30)
    renewed = await store.set("k", "v", instance="a", ttl=60)
    assert renewed.revision == first.revision
    assert renewed.expires - first.expires == pytest.approx(30, abs=5)
    started = time.monotonic()
    page = await store.watch(first.revision, wait=0.05)
    assert page.revision == first.revision
    assert time.monotonic() - started >= 0.05


@pytest.mark.slow
async def test_an_entry_ends_with_its_time_to_live_and_wakes_watchers(store):
    entry = await store.set("k", "v", instance="a", ttl=0.15)
    page = await store.watch(entry.revision, wait=20)
    assert page.entries == []
    assert page.revision == entry.revision + 1
    assert time.time() >= entry.expires


@pytest.mark.slow
async def test_a_renewal_extends_a_life(store):
    entry = await store.set("k", "v", instance="a", ttl=1)
    await store.set("other", "v", ttl=2)
    await store.set("k", "v", instance="a", ttl=60)
    page = await store.watch(entry.revision + 1, wait=20)  # until the other entry ends, later than the first ttl
    assert [entry.key for entry in page.entries] == ["k"]


async def test_watch_returns_at_once_where_something_changed(store):
    entry = await store.set("k", "v")
    for unknown in (entry.revision - 1, entry.revision + 10, -1, 0):
        async with asyncio.timeout(25):
            assert (await store.watch(unknown, wait=30)).revision == entry.revision


async def test_many_watchers_are_woken_by_one_change(store):
    revision = (await store.entries()).revision
    watchers = [asyncio.create_task(store.watch(revision, key="k", wait=30)) for _ in range(50)]
    await asyncio.sleep(0)
    await store.set("k", "v")
    async with asyncio.timeout(25):
        pages = await asyncio.gather(*watchers)
    assert {tuple(entry.value for entry in page.entries) for page in pages} == {("v",)}


@pytest.mark.slow
async def test_concurrent_writes_are_all_kept(store):
    start = (await store.entries()).revision
    await asyncio.gather(*(store.set(f"key{n % 10}", str(n), instance=str(n)) for n in range(100)))
    page = await store.entries()
    assert len(page.entries) == 100
    assert page.revision == start + 100
    assert len({entry.revision for entry in page.entries}) == 100
