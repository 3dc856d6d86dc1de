"""Test db over plain HTTP: the classic protocol, wrong requests, metrics."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from safelight import recipe
from safelight.client.db import DbClient
from safelight.db.__main__ import CLASSIC_TASK
from safelight.wire import State, TaskQuery, encode
from support.tasks import new_task, request


@pytest.fixture
async def http(service):
    async with aiohttp.ClientSession(service.url) as session:
        yield session


async def test_the_classic_protocol_from_end_to_end(http):
    async with http.get("/task/next") as response:
        assert (response.status, await response.json()) == (404, {"id": -1, "state": 0})
    async with http.post("/task") as response:
        assert response.status == 200
        task_id = await response.text()
    async with http.get(f"/task/{task_id}") as response:
        task = await response.json()
        assert (task["id"], task["state"]) == (task_id, -1)
    async with http.get("/task/next") as response:
        assert response.status == 404
    for _ in range(2):
        async with http.post(f"/task/{task_id}/ready") as response:
            assert (response.status, await response.read()) == (200, b"")
    async with http.get("/task/next") as response:
        assert response.status == 200
        given = await response.json()
    assert given["state"] == 1
    assert given["id"] != task_id
    async with http.get(f"/task/{given['id']}") as response:
        task = await response.json()
        assert (task["id"], task["state"]) == (given["id"], 1)
    for body in (None, b"", b"null", b"{}"):  # some libraries send a media type even without a body
        typed = {} if body is None else {"Content-Type": "application/json"}
        async with http.post(f"/task/{given['id']}/finish", data=body, headers=typed) as response:
            assert (response.status, await response.read()) == (200, b"")
    async with http.get(f"/task/{task_id}") as response:
        assert (await response.json())["state"] == 2
    async with http.get("/task/nothing") as response:
        assert (response.status, await response.text()) == (404, "Task not found")


async def test_a_classic_worker_that_lost_its_task_is_refused(http, service):
    async with http.post("/task") as response:
        task_id = await response.text()
    await (await http.post(f"/task/{task_id}/ready")).read()
    async with http.get("/task/next") as response:
        lease = (await response.json())["id"]
    async with DbClient.connect(service.url) as db:
        await db.cancel(task_id)
    async with http.post(f"/task/{lease}/finish") as response:
        assert response.status == 409
        assert "no longer in force" in await response.text()
    async with http.get(f"/task/{task_id}") as response:
        assert (await response.json())["state"] == State.CANCELLED


def test_the_task_of_a_classic_client_has_the_recipe_invert():
    assert bytes(CLASSIC_TASK.spec) == recipe.encode_work(recipe.BUILTIN["invert"])
    assert CLASSIC_TASK.recipe_digest == recipe.digest(recipe.BUILTIN["invert"], "")


def _with(**changes: object) -> dict[str, object]:
    return {**json.loads(encode(new_task())), **changes}


@pytest.mark.parametrize(
    ("method", "path", "body", "position"),
    [
        ("POST", "/tasks", {}, "$"),
        ("POST", "/tasks", [{}], "$[0].recipe"),
        ("POST", "/tasks", [_with(priority=101)], "$[0].priority"),
        ("POST", "/tasks", [_with(recipe_digest="x")], "$[0].recipe_digest"),
        ("POST", "/tasks", [_with(state=2)], "$[0].state"),
        ("POST", "/tasks", [_with(idempotency_key="")], "$[0].idempotency_key"),
        ("POST", "/tasks", [_with() for _ in range(1001)], "$"),
        ("POST", "/tasks", b"{", None),
        ("POST", "/tasks", b'[{"recipe": "\\ud800"}]', None),
        ("POST", "/lease", {"worker": {"id": "w"}, "n": 1001}, "$.n"),
        ("POST", "/lease", {"worker": {"id": "w"}, "wait": 61}, "$.wait"),
        ("POST", "/lease", {"worker": {"id": ""}}, "$.worker.id"),
        ("POST", "/heartbeat", {}, "$.worker"),
        ("POST", "/outcomes", [{"kind": "eaten", "lease": "x"}], "$[0].kind"),
        ("POST", "/outcomes", [{"kind": "returned", "lease": "x"}] * 1001, "$"),
        ("GET", "/tasks?state=eaten", None, "state"),
        ("GET", "/tasks?limit=0", None, "limit"),
        ("GET", "/tasks?before=x", None, "before"),
        ("GET", "/events?after=-1", None, "after"),
        ("GET", "/events?wait=x", None, "wait"),
        ("GET", "/events?wait=nan", None, None),
        ("PUT", "/recipes/a", {"name": "b", "spec": {}}, "$.name"),
        ("POST", "/deliveries?n=0", None, "n"),
        ("POST", "/deliveries/x", {"delivered": False, "retry_after": -1}, "$.retry_after"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # the request is refused before it reaches a backend
async def test_a_wrong_request_is_refused_with_the_place(http, method, path, body, position):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with http.request(method, path, data=data) as response:
        problem = await response.json(content_type="application/problem+json")
        assert response.status == 400, problem
    assert problem["code"] == "invalid_request"
    if position is not None:
        assert problem["position"] == position


async def test_leases_of_a_worker_that_hung_up_are_returned(http, service):
    async with DbClient.connect(service.url) as db:
        host, port = service.url.removeprefix("http://").split(":")
        _reader, writer = await asyncio.open_connection(host, int(port))
        body = encode(request("gone", wait=30))
        writer.write(
            b"POST /lease HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        await writer.drain()
        while not (await db.summary()).workers:
            pass
        writer.close()
        await writer.wait_closed()
        (made,) = await db.create([new_task()])
        (lease,) = await db.lease(request("next", wait=10))
        assert lease.task == made.id
        assert (await db.get(made.id)).deaths == 0


async def test_the_metrics_describe_the_queue(http, service):
    async with DbClient.connect(service.url) as db:
        await db.create([new_task(webhook="http://127.0.0.1:1/"), new_task()])
        await db.cancel((await db.find(TaskQuery())).tasks[-1].id)
    async with http.get("/metrics") as response:
        text = await response.text()
    for line in (
        'safelight_tasks{state="waiting"} 1.0',
        'safelight_task_changes_total{kind="created"} 2.0',
        "safelight_webhooks_due 1.0",
        "safelight_delayed_tasks 0.0",
        "safelight_available_tasks 1.0",
    ):
        assert line in text
    assert "safelight_oldest_waiting_seconds" in text


async def test_a_stop_ends_waits_at_once(service):
    async with DbClient.connect(service.url) as db:
        waits = [
            asyncio.create_task(db.lease(request(wait=60))),
            asyncio.create_task(db.events(0, wait=60)),
            asyncio.create_task(db.deliveries(wait=60)),
        ]
        while not (await db.summary()).workers:
            pass
        service.stop()
        leases, page, due = await asyncio.wait_for(asyncio.gather(*waits), 10)
        assert (leases, page.events, due) == ([], [], [])
