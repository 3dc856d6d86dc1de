"""Test that an idempotency key names one task, in every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from safelight.client.db import DbClient
from safelight.errors import Code
from safelight.wire import Blob, State, TaskQuery
from support.tasks import digest, new_task, refused


async def test_an_idempotency_key_names_one_task(store):
    first, other, again = await store.create(
        [new_task("a", idempotency_key="k"), new_task("b"), new_task("a", idempotency_key="k")]
    )
    assert first == again != other
    await store.cancel(first.id)
    (later,) = await store.create([new_task("a", idempotency_key="k")])
    assert (later.id, later.state) == (first.id, State.CANCELLED)
    assert len((await store.find(TaskQuery())).tasks) == 2


async def test_tasks_are_found_by_their_keys(store):
    first, second, _ = await store.create([new_task(idempotency_key=key) for key in ("a", "b", None)])
    assert sorted(await store.keyed(["a", "b", "c"]), key=lambda task: task.id) == [first, second]
    assert await store.keyed(["c"]) == await store.keyed([]) == await store.keyed(["a"], tenant="other") == []


@pytest.mark.parametrize(
    ("named", "changed"),
    [
        ("input", {"input": Blob(digest=digest("z"), size=1000)}),
        ("recipe", {"recipe_digest": digest("q")}),
        ("priority", {"priority": 7}),
        ("batch", {"batch": "holiday"}),
        ("webhook", {"webhook": "http://127.0.0.1/hook"}),
    ],
)
async def test_an_idempotency_key_is_not_accepted_for_another_task(store, named, changed):
    await store.create([new_task("a", idempotency_key="k")])
    error = await refused(
        Code.CONFLICT, store.create([new_task("c"), new_task("a", idempotency_key="k").evolve(**changed)])
    )
    assert error.extra["position"] == "$[1].idempotency_key"
    assert f"for another {named}." in error.detail
    both = [new_task("a", idempotency_key="n"), new_task("a", idempotency_key="n").evolve(**changed)]
    error = await refused(Code.CONFLICT, store.create(both))
    assert f"for another {named}." in error.detail
    assert len((await store.find(TaskQuery())).tasks) == 1


async def test_racing_creations_with_one_key_make_one_task(store):
    made = await asyncio.gather(*(store.create([new_task("a", idempotency_key="k")]) for _ in range(20)))
    assert len({task.id for (task,) in made}) == 1
    assert (await store.summary()).tasks["waiting"] == 1


@pytest.fixture
async def lossy(service) -> AsyncIterator[str]:
    """Relay requests to db, but close the connection instead of answering the first change."""
    lost: list[str] = []

    async def relay(request: web.Request) -> web.Response:
        sent = {name: value for name, value in request.headers.items() if name in {"Content-Type", "Accept"}}
        url = service.url + request.path_qs
        async with http.request(request.method, url, data=await request.read(), headers=sent) as answer:
            given = web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
            given.headers["Server"] = answer.headers["Server"]
        if request.method == "POST" and not lost:
            lost.append(request.path)
            assert request.transport is not None
            request.transport.abort()
        return given

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as http:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


async def test_a_retry_whose_answer_was_lost_is_not_refused_when_it_is_repeated(lossy, service):
    async with DbClient.connect(service.url) as db, DbClient.connect(lossy) as unlucky:
        task, waiting = await db.create([new_task(), new_task()])
        await db.cancel(task.id)
        assert (await unlucky.retry(task.id)).state is State.WAITING
        await refused(Code.CONFLICT, db.retry(waiting.id))
        await refused(Code.CONFLICT, unlucky.retry(waiting.id))
