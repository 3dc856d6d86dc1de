"""Test two tenants: objects of the other look as if they did not exist, and no tenant uses up shared resources."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import msgspec
import pytest

from safelight.client.base import bearer
from safelight.client.db import DbClient
from safelight.wire import LeaseRequest, WorkerInfo
from support.photos import photo
from support.programs.command import safelight
from support.tasks import finished

from .conftest import ELSEWHERE
from .tenants import Api, finish_one, keyed_tenant

PNG = {"outputs": {"image": {"format": "png"}}}


@pytest.fixture
async def root(keyed, http) -> Api:
    return Api(http, keyed.url("master"), keyed.key)


def unknown(name: str) -> str:
    """Return a name of the same form that no object has."""
    number, dash, _ = name.partition("-")
    return f"{number}-{'b' * 10}" if dash and number.isdigit() else name[:-1] + ("1" if name[-1] == "0" else "0")


async def test_only_the_system_administrator_sees_totals_of_all_tenants(plane, http):
    await plane.start_all(trusted_proxies=ELSEWHERE, master={"webhook_allow_private": True})
    root = Api(http, plane.url("master"), plane.key)
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    async with first.client() as client:
        task = await client.upload(photo(1), webhook="http://127.0.0.1:9/")
    await first.call("POST", f"/task/{task.id}/cancel")
    assert (await root.call("GET", "/summary"))["webhooks_due"] == 1
    assert (await second.call("GET", "/summary"))["webhooks_due"] == 0


@pytest.mark.slow
async def test_a_tenant_is_told_that_it_does_not_see_workers_rather_than_that_there_are_none(keyed, root):
    first = await keyed_tenant(root, "first")
    assert (await root.call("GET", "/summary"))["workers_hidden"] is False
    assert (await first.call("GET", "/summary"))["workers_hidden"] is True

    async def run(*argv: str) -> str:
        done = await asyncio.to_thread(
            safelight, *argv, SAFELIGHT_MASTER=first.url.removeprefix("http://"), SAFELIGHT_API_KEY=first.token
        )
        return done.stdout + done.stderr

    for argv in (("status",), ("workers",), ("top", "--once")):
        said = await run(*argv)
        assert "only users of the tenant default see them" in " ".join(said.split()), said
        assert "no workers" not in said
    assert "only people of default may drain them" in await run("workers", "drain", "any")


async def test_a_tenant_sees_no_names_of_machines_in_its_events(keyed, root):
    first = await keyed_tenant(root, "first")
    async with DbClient.connect(keyed.url("db"), credentials=bearer(keyed.key)) as db, first.client() as client:
        task = await client.upload(photo(1))
        await db.lease(LeaseRequest(worker=WorkerInfo(id="pod-7.internal-0a1b2c"), wait=30.0))
        read = await client.changes(task.seq - 1)
        awaited = await client.changes(task.seq, wait=30.0)
        assert [event.worker for event in (*read.events, *awaited.events)] == ["", "0a1b2c", "0a1b2c"]
        stream = f"{first.url}/events?after={task.seq}"
        async with first.http.get(stream, headers=first.headers) as events:
            async for line in events.content:
                if line.startswith(b"data:"):
                    assert msgspec.json.decode(line[5:])["worker"] == "0a1b2c"
                    break


NAMING_A_TASK = (
    *(("POST", "/tasks/actions", lambda name, a=a: {"action": a, "tasks": [name], "recipe": "invert"})
      for a in ("cancel", "retry", "release", "delete", "rerun")),
    ("POST", "/preview", lambda name: {"task": name, "recipe": PNG}),
    ("GET", "/archive?tasks=NAME", None), ("GET", "/tasks?before=NAME", None), ("GET", "/tasks?search=NAME", None),
    ("GET", "/tasks?before=NAME&search=a", None), ("GET", "/tasks/counts?search=NAME", None),
    ("GET", "/events?after=0&task=NAME", None), ("GET", "/webhooks/calls?before=NAME", None),
)  # fmt: skip
"""Requests that name a task outside of the path: method, path, and the body with the name."""


async def opened(api: Api) -> str:
    """Open a partial upload; return its id."""
    upload = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    async with api.http.post(f"{api.url}/uploads", headers={**api.headers, **upload}) as answer:
        return answer.headers["Location"].rpartition("/")[2]


@pytest.mark.slow
async def test_objects_of_another_tenant_look_as_if_they_did_not_exist(keyed, root):
    """Compare status, headers and body for every route with a name in its path, and every field that takes a name."""
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    await first.call("PUT", "/recipes/own-recipe", PNG)
    key = (await first.call("POST", "/keys", {}))["key"]["id"]
    async with first.client() as client:
        made = await client.upload(photo(1), batch="holiday", recipe="own-recipe")
        waiting = await client.upload(photo(2), batch="holiday")
    assert await finish_one(keyed, photo(3)) == made.id
    partial = await opened(first)

    async def ask(method: str, path: str, name: str, body: object = None) -> tuple:
        sent = {
            **second.headers, "Accept": "application/json", "Tus-Resumable": "1.0.0", "Upload-Offset": "0",
            "X-HTTP-Method-Override": "DELETE", "If-None-Match": f'"{made.input.digest}", *',
            **({"Content-Type": "application/offset+octet-stream"} if method == "PATCH" else {}),
        }  # fmt: skip
        async with second.http.request(method, second.url + path, json=body, headers=sent) as answer:
            headers = {key: value for key, value in answer.headers.items() if key != "Date"}
            return answer.status, str(headers).replace(name, "NAME"), (await answer.text()).replace(name, "NAME")

    ids, names = [made.id, waiting.id, partial, key, "first"], ["own-recipe", "holiday"]
    bodies = {"POST": [None, {}, {"overlap": 1}], "PUT": [{"weight": 2}]}
    asked = 0
    for route, known in keyed.services["master"].routes.items():
        for placeholder in re.findall(r"\{\w+\}", known.path):
            for name in names if placeholder == "{name}" else ids:
                for body in bodies.get(route.method, [None]):
                    paths = [known.path.replace(placeholder, each) for each in (name, unknown(name))]
                    seen = await ask(route.method, paths[0], name, body)
                    assert seen == await ask(route.method, paths[1], unknown(name), body), (route.method, paths[0])
                    asked += 1
    assert asked > 150
    for method, path, field in NAMING_A_TASK:
        for name in (made.id, waiting.id):
            seen, nothing = [
                await ask(method, path.replace("NAME", each), each, field and field(each))
                for each in (name, unknown(name))
            ]
            assert seen == nothing, (method, path)


async def test_one_tenant_cannot_hold_every_event_stream(plane, http):
    await plane.start_all(trusted_proxies=ELSEWHERE, master={"event_readers": 3})
    root = Api(http, plane.url("master"), plane.key)
    flood, other = await keyed_tenant(root, "flood"), await keyed_tenant(root, "other")
    async with AsyncExitStack() as stack:

        async def follow(api: Api):
            return await stack.enter_async_context(http.get(f"{api.url}/events", headers=api.headers))

        held = [await follow(flood) for _ in range(3)]
        assert (await follow(flood)).status == 429, "a tenant must not end its own streams for a new one"
        mine = await follow(other)
        assert (mine.status, (await mine.content.readline())[:6]) == (200, b"retry:")
        async with asyncio.timeout(30):
            with pytest.raises(Exception, match=r"(?i)closed|reset|payload"):
                await held[-1].content.read()
        assert (await follow(other)).status == 429, "two tenants must not keep ending each other's streams"


@pytest.mark.slow
async def test_a_paused_tenant_does_not_delay_renditions_of_others(keyed, root):
    """A rendition of a tenant with a paused queue is not made; those of other tenants are made."""
    paused, other = await keyed_tenant(root, "paused"), await keyed_tenant(root, "other")
    await paused.call("POST", "/queue/pause")
    async with paused.client() as client:
        for number in range(8):
            task = await client.upload(photo(number, width=720))
            async with paused.http.get(
                f"{paused.url}/task/{task.id}/rendition?wait=0", headers=paused.headers
            ) as answer:
                assert answer.status == 202
    async with other.client() as client:
        task = await client.upload(photo(9, width=720))
    async with DbClient.connect(keyed.url("db"), credentials=bearer(keyed.key)) as db:
        asking = LeaseRequest(worker=WorkerInfo(id="w", engine="engine 1"), wait=30.0)
        (lease,) = await db.lease(asking)
        await db.settle([finished(lease.id)])
        async with other.http.get(f"{other.url}/task/{task.id}/rendition?wait=0", headers=other.headers) as answer:
            assert answer.status == 202
        leases = await db.lease(asking)
        assert [(each.tenant, each.recipe) for each in leases] == [("other", "rendition")]


async def test_an_upload_that_an_earlier_tenant_began_is_not_the_later_one_s_of_its_id(keyed, root):
    earlier, picture = await keyed_tenant(root, "again"), photo(1)

    async def sent(api: Api, method: str, path: str, body=None, **headers: str):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = {} if body is None else {"Content-Type": "application/offset+octet-stream"}
        headers = {**api.headers, "Tus-Resumable": "1.0.0", **kind, **named}
        async with api.http.request(method, api.url + path, data=body, headers=headers) as answer:
            return answer

    length = {"Upload_Length": str(len(picture))}
    begun = (await sent(earlier, "POST", "/uploads", picture[:100], **length)).headers["Location"]
    await root.call("DELETE", "/tenants/again", status=204)
    later = await keyed_tenant(root, "again")
    for method, body, headers in (("HEAD", None, {}), ("PATCH", picture[100:], {"Upload_Offset": "100"})):
        assert (await sent(later, method, begun, body, **headers)).status == 404
    assert (await sent(later, "DELETE", begun)).status == 404
    async with later.client() as client:
        assert not (await client.tasks()).tasks
        own = (await sent(later, "POST", "/uploads", picture[:100], **length)).headers["Location"]
        await root.call("PUT", "/tenants/again", {"name": "Again", "weight": 2})  # a change makes no other tenant
        assert (await sent(later, "PATCH", own, picture[100:], Upload_Offset="100")).status == 204
        assert len((await client.tasks()).tasks) == 1
