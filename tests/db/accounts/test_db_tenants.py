"""Test tenants in the task store: no tenant sees, reuses or waits for tasks of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import msgspec
import pytest

from safelight import serve
from safelight.client.accounts import AccountClient
from safelight.db.__main__ import build
from safelight.errors import Code, Error
from safelight.wire import Blob, NamedRecipe, State, TaskChange, TaskFilter, TaskQuery
from safelight.wire.accounts import Limits, Tenant
from support.tasks import digest, failed, finished, new_task, request


@pytest.fixture
async def store(service):
    """Return the client of a served store with the tenants a and b."""
    async with AccountClient.connect(service.url) as accounts:
        for name in ("a", "b"):
            await accounts.create_tenant(Tenant(id=name))
    from safelight.client.db import DbClient

    async with DbClient.connect(service.url) as client:
        yield client


@pytest.fixture
async def opened_accounts(backend):
    """Return a function that serves the same data again; it returns clients of the store and of its accounts."""
    from safelight.client.db import DbClient

    async with AsyncExitStack() as stack:

        async def open_both():
            await stack.aclose()
            running = await stack.enter_async_context(serve.running("db", backend.config(), build))
            store = await stack.enter_async_context(DbClient.connect(running.url))
            return store, await stack.enter_async_context(AccountClient.connect(running.url))

        yield open_both


@pytest.fixture
async def accounts(service):
    async with AccountClient.connect(service.url) as client:
        yield client


async def refused(code: Code, call) -> Error:
    with pytest.raises(Error) as caught:
        await call
    assert caught.value.code is code
    return caught.value


async def test_every_call_that_names_another_tenant_finds_nothing(store):
    (task,) = await store.create([new_task(tenant="a", batch="holiday", recipe="sepia")])
    await store.save_recipe(NamedRecipe(tenant="a", name="own", spec=msgspec.Raw(b"{}")))
    assert (await store.get(task.id, tenant="a")).tenant == "a"
    for call in (store.get, store.cancel, store.retry, store.release, store.delete):
        await refused(Code.NOT_FOUND, call(task.id, tenant="b"))
    for query in ({}, {"state": "waiting"}, {"batch": "holiday"}, {"recipe": "sepia"}, {"search": "photo"}):
        assert [found.id for found in (await store.find(TaskQuery(**query), tenant="a")).tasks] == [task.id]
        assert (await store.find(TaskQuery(**query), tenant="b")).tasks == []
        assert (await store.find(TaskQuery(**query))).tasks == []
    assert [(await store.count(TaskFilter(), tenant=name)).total for name in ("a", "b")] == [1, 0]
    assert [len((await store.batches(tenant=name)).batches) for name in ("a", "b")] == [1, 0]
    await refused(Code.NOT_FOUND, store.spec(task.id, tenant="b"))
    for chosen in ({"tasks": [task.id]}, {"filter": TaskFilter()}):
        assert (await store.change(TaskChange(action="delete", **chosen), tenant="b")).changed == 0
    assert (await store.events(0, tenant="b")).events == []
    assert (await store.events(0, tenant="b", task=task.id)).events == []
    assert [event.task for event in (await store.events(0, tenant="a")).events] == [task.id]
    empty = await store.summary(tenant="b")
    assert (set(empty.tasks.values()), empty.oldest_waiting) == ({0}, 0.0)
    assert (await store.summary(tenant="a")).tasks["waiting"] == 1
    assert await store.recipes(tenant="b") == await store.recipes() == []
    await refused(Code.NOT_FOUND, store.delete_recipe("own", tenant="b"))
    assert [recipe.name for recipe in await store.recipes(tenant="a")] == ["own"]
    assert await store.lease_classic(tenant="b") is None
    await refused(Code.FORBIDDEN, store.create([new_task(tenant="nobody")]))


async def test_idempotency_keys_and_results_belong_to_a_tenant(store):
    first, other = await store.create([new_task("x", tenant=name, idempotency_key="k") for name in ("a", "b")])
    assert first.id != other.id
    (lease,) = await store.lease(request(n=1))
    await store.settle([finished(lease.id)])
    done = (await store.get(lease.task)).tenant
    rest = "b" if done == "a" else "a"
    reused, anew = await store.create([new_task("x", tenant=done), new_task("x", tenant=rest)])
    assert (reused.state, reused.reused) == (State.FINISHED, True)
    assert (anew.state, anew.reused) == (State.WAITING, False)


async def test_a_spec_that_an_earlier_version_stored_shows_no_names_of_the_tenant_that_used_it_first(store):
    same = {"recipe_digest": "5" * 64}
    named = msgspec.Raw(b'{"auto_orient":true,"description":"For the merger","name":"merger","outputs":{"a":{}}}')
    (first,) = await store.create([new_task(tenant="a", recipe="merger", spec=named, **same)])
    (other,) = await store.create([new_task(tenant="b", recipe="thumb", spec=msgspec.Raw(b"{}"), **same)])
    for task in (first, other):
        found = await store.spec(task.id, tenant=task.tenant)
        assert found.name == task.recipe
        assert bytes(found.spec) == b'{"auto_orient":true,"description":"","name":"custom","outputs":{"a":{}}}'


@pytest.mark.slow
async def test_a_reader_skips_long_runs_of_other_tenants_events(store):
    for _ in range(11):
        await store.create([new_task(tenant="a") for _ in range(1000)])
    (own,) = await store.create([new_task(tenant="b")])
    after, pages = 0, 0
    while not (page := await store.events(after, tenant="b", wait=5.0)).events:
        after, pages = page.last, pages + 1
    assert [event.task for event in page.events] == [own.id]
    assert 0 < pages < 5


async def test_limits_refuse_with_the_time_to_wait_and_do_not_affect_others(store, accounts):
    await accounts.change_tenant(Tenant(id="a", limits=Limits(waiting=2, bytes=5000)))
    tasks = await store.create([new_task(tenant="a") for _ in range(2)])
    error = await refused(Code.TOO_MANY_REQUESTS, store.create([new_task(tenant="a")]))
    assert (error.extra["limit"], error.extra["retry_after"]) == (2, 5)
    assert len(await store.create([new_task(tenant="b") for _ in range(100)])) == 100
    await store.cancel(tasks[0].id)
    (again,) = await store.create([new_task(tenant="a", idempotency_key="k")])
    (same,) = await store.create([new_task(tenant="a", idempotency_key="k", input=again.input)])
    assert same.id == again.id, "a repeated request must not create a task"
    await accounts.change_tenant(Tenant(id="a", limits=Limits(bytes=3500)))
    error = await refused(Code.TOO_MANY_REQUESTS, store.create([new_task(tenant="a")]))
    assert error.extra["limit"] == 3500
    await store.delete(tasks[0].id)
    await store.create([new_task(tenant="a")])
    assert {use.tenant: use.bytes for use in await accounts.use()} == {"a": 3000, "b": 100_000, "default": 0}
    assert [(await store.summary(tenant=name)).bytes for name in ("a", None)] == [3000, 103_000]


@pytest.mark.slow
async def test_one_photo_is_leased_within_a_round_despite_a_flood(store):
    """One tenant has 20,000 waiting tasks when another uploads a photo; a round is one lease for each tenant."""
    for _ in range(20):
        await store.create([new_task(tenant="a", interactive=False) for _ in range(1000)])
    first = await store.lease(request(n=8))
    assert {lease.tenant for lease in first} == {"a"}
    (photo,) = await store.create([new_task(tenant="b")])
    (lease,) = await store.lease(request(holding=[lease.id for lease in first]))
    assert lease.task == photo.id
    own = await store.create([new_task(tenant="a"), new_task(tenant="a", priority=-1)])
    (lease,) = await store.lease(request("other"))
    assert lease.task == own[0].id, "interactive photos must come before the tenant's own batch"


async def test_leases_are_shared_by_weight(store, accounts):
    await accounts.change_tenant(Tenant(id="a", weight=3.0))
    for name in ("a", "b", "default"):
        await store.create([new_task(tenant=name) for _ in range(300)])
    order = [lease.tenant for lease in await store.lease(request(n=100))]
    assert Counter(order) == {"a": 60, "b": 20, "default": 20}
    assert all(set(order[start : start + 6]) == {"a", "b", "default"} for start in range(0, 90, 5)), "not in turns"
    for name in ("a", "default"):
        await accounts.change_tenant(Tenant(id=name, weight=1.0))
    order = [lease.tenant for lease in await store.lease(request("other", n=90))]
    assert max(Counter(order).values()) - min(Counter(order).values()) <= 1


async def test_a_paused_queue_leases_nothing_and_wakes_its_waiters_when_it_is_resumed(store, accounts):
    for name in ("a", "b"):
        await store.create([new_task(tenant=name, classic=True)])
    paused = await accounts.pause("a", paused=True)
    assert paused.paused > 0
    assert await accounts.pause("a", paused=True) == paused, "the time of the first pause must be kept"
    assert [lease.tenant for lease in await store.lease(request(n=10))] == ["b"]
    assert await store.lease_classic(tenant="a") is None
    assert [(await store.summary(tenant=name)).paused for name in ("a", "b", None)] == [paused.paused, 0.0, 0.0]
    changed = await accounts.change_tenant(Tenant(id="a", weight=2.0))
    assert changed.paused == paused.paused, "changing a tenant must not resume its queue"
    waiting = asyncio.create_task(store.lease(request("later", n=10, wait=30.0)))
    await store.create([new_task(tenant="a")])
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    assert (await accounts.pause("a", paused=False)).paused == 0.0
    assert {lease.tenant for lease in await asyncio.wait_for(waiting, 20.0)} == {"a"}


async def test_paused_tasks_are_not_late(store, accounts):
    """They wait for a person, and more workers would not help them."""
    await store.create([new_task(tenant="a"), new_task(tenant="b", recipe="web")])
    await accounts.pause("a", paused=True)
    await accounts.pause_recipe("b", "web", paused=True)
    assert await store.lease(request(n=10)) == []
    await store.create([new_task(tenant="b")])
    for tenant, available in (("a", 0), ("b", 1), (None, 1)):
        summary = await store.summary(tenant=tenant)
        assert (summary.available, summary.oldest_waiting > 0) == (available, available > 0)
    await accounts.pause("b", paused=True)
    summary = await store.summary()
    assert (summary.tasks["waiting"], summary.available, summary.oldest_waiting) == (3, 0, 0.0)
    for tenant in ("a", "b"):
        await accounts.pause(tenant, paused=False)
    assert (await store.summary()).available == 2  # that of `web` is still paused


async def test_a_paused_recipe_leases_nothing_and_delays_no_other(store, accounts):
    """The paused tasks wait in front of others, are retried and created meanwhile, and keep their order afterwards."""
    first = await store.create([new_task(recipe="web", tenant="a") for _ in range(30)])
    (failing,) = [lease.id for lease in await store.lease(request(n=1))]
    await store.create([new_task(recipe="thumb", tenant="a"), new_task(recipe="web", tenant="b")])
    paused = await accounts.pause_recipe("a", "web", paused=True)
    assert (await accounts.pause_recipe("a", "web", paused=True)).paused_recipes == paused.paused_recipes
    await store.settle([failed(failing, permanent=True)])
    await store.retry(failing)
    later = await store.create([new_task(recipe="web", tenant="a", classic=True)])
    leases = await store.lease(request("other", n=10, holding=[]))
    assert {(lease.tenant, lease.recipe) for lease in leases} == {("a", "thumb"), ("b", "web")}
    assert await store.lease_classic(tenant="a") is None
    summary = await store.summary(tenant="a")
    assert (summary.tasks["waiting"], summary.delayed, set(summary.paused_recipes)) == (31, 0, {"web"})
    changed = await accounts.change_tenant(Tenant(id="a", weight=2.0))
    assert set(changed.paused_recipes) == {"web"}, "changing a tenant must not resume its recipes"
    waiting = asyncio.create_task(store.lease(request("later", n=100, wait=30.0)))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    assert not (await accounts.pause_recipe("a", "web", paused=False)).paused_recipes
    order = [lease.task for lease in await asyncio.wait_for(waiting, 20.0)]
    assert order == [task.id for task in [*first, *later]]


async def test_a_classic_worker_is_told_of_no_task_of_a_paused_recipe(store, accounts):
    await store.create([new_task(tenant="a", recipe="web", classic=True) for _ in range(3)])
    await accounts.pause_recipe("a", "web", paused=True)
    assert not await store.classic_waits(tenant="a")
    assert await store.lease_classic(tenant="a") is None
    (other,) = await store.create([new_task(tenant="a", classic=True)])
    assert await store.classic_waits(tenant="a")
    assert (await store.lease_classic(tenant="a")).task == other.id
    await accounts.pause_recipe("a", "web", paused=False)
    assert await store.classic_waits(tenant="a")


async def test_a_pause_of_a_recipe_outlasts_a_restart_and_ends_for_all_its_tasks(opened_accounts):
    """Pause more tasks than one transaction moves, and pause again before the first pause has ended for all of them."""
    store, accounts = await opened_accounts()
    for _ in range(3):
        await store.create([new_task(recipe="web") for _ in range(600)])
    await accounts.pause_recipe("default", "web", paused=True)
    await store.create([new_task(recipe="thumb")])
    assert [lease.recipe for lease in await store.lease(request(n=1, wait=30.0))] == ["thumb"]
    store, accounts = await opened_accounts()
    assert set((await store.summary(tenant="default")).paused_recipes) == {"web"}
    assert await store.lease(request("w2", n=10)) == []
    await accounts.pause_recipe("default", "web", paused=False)
    await accounts.pause_recipe("default", "web", paused=True)
    assert await store.lease(request("w2", n=10, wait=0.5)) == []
    await accounts.pause_recipe("default", "web", paused=False)
    leased: list[str] = []
    async with asyncio.timeout(60):
        while len(leased) < 1800:
            leased += [lease.task for lease in await store.lease(request(f"w{len(leased)}", n=1000, wait=10.0))]
    summary = await store.summary()
    assert (summary.tasks["waiting"], summary.delayed) == (0, 0)


async def test_tenants_take_turns_with_webhook_calls(store):
    """A tenant gets half of the free places, however many of its calls were due earlier."""
    hook = "http://127.0.0.1:1/hook"
    many = await store.create([new_task(tenant="a", webhook=hook) for _ in range(40)])
    await asyncio.gather(*(store.cancel(task.id) for task in many))
    (one,) = await store.create([new_task(tenant="b", webhook=hook)])
    await store.cancel(one.id)
    taken = await store.deliveries(n=16)
    held = Counter(call.task.tenant for call in taken)
    assert held == {"a": 7, "b": 1}
    assert await store.deliveries(n=8, held=held) == [], "tenant a has its share already"
    (one_more,) = await store.deliveries(n=9, held={"a": 7})
    assert one_more.task.tenant == "a", "tenant b's call has ended, so a may have more"
    taken.append(one_more)
    while due := await store.deliveries(n=16):
        taken += due
    assert sorted(call.task.id for call in taken) == sorted([one.id, *(task.id for task in many)])
    for call in taken:
        await store.settle_delivery(call.id, delivered=True)
    assert (await store.webhook_calls(tenant="b")).calls[0].task == one.id
    assert len((await store.webhook_calls(tenant="a")).calls) == 40


async def test_of_several_tasks_those_for_which_there_is_room_are_created(store, accounts):
    await accounts.change_tenant(Tenant(id="a", limits=Limits(waiting=3, bytes=2500)))
    (first,) = await store.create([new_task(tenant="a", idempotency_key="first")])
    wanted = [
        new_task(tenant="a", idempotency_key="second"),
        new_task(tenant="a"),
        new_task(tenant="a", idempotency_key="first", input=first.input),
        new_task(tenant="a", idempotency_key="first", priority=1, input=first.input),
        new_task(tenant="a", idempotency_key="small", input=Blob(digest=digest("small"), size=500)),
        new_task(tenant="a", idempotency_key="small", input=Blob(digest=digest("small"), size=500)),
        new_task(tenant="a", input=None),
        new_task(tenant="a", internal=True),
        new_task(tenant="nobody"),
        new_task(tenant="b"),
    ]
    made = await store.create_each(wanted)
    refused = {place: each.problem["code"] for place, each in enumerate(made) if each.problem is not None}
    full, unknown = "too_many_requests", "forbidden"
    assert refused == {1: full, 3: "conflict", 6: full, 8: unknown}
    assert [made[place].problem["limit"] for place in (1, 6)] == [2500, 3]
    assert made[2].task.id == first.id
    assert made[4].task == made[5].task
    tasks = [each.task for each in made if each.task is not None]
    assert len({task.id for task in tasks}) == 5
    assert (await store.summary(tenant="a")).tasks["waiting"] == 4
    assert [(await store.get(task.id)).tenant for task in tasks] == ["a"] * 5 + ["b"]
