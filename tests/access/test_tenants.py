"""Test tenants at the master: no tenant finds objects of another."""

from __future__ import annotations

import asyncio
import io
import json
import re

import pytest

from access.tenants import Api, acting, finish_one, keyed_tenant
from safelight.access.caller import Access
from safelight.errors import Code, Error
from safelight.wire import State
from support.photos import photo


@pytest.fixture
async def root(keyed, http) -> Api:
    """Return the API with the cluster key, which administers the system."""
    return Api(http, keyed.url("master"), keyed.key)


NAMES = ("own-recipe", "holiday-batch", "beach-photo")
NAMED = ("batch=holiday-batch", "recipe=own-recipe", "tenant=first")
"""Queries that name another tenant."""


@pytest.mark.slow
async def test_a_second_tenant_finds_nothing_by_any_reading_endpoint(keyed, root):
    """Request every GET route as it is, and with the names and ids of the first tenant's objects."""
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    recipe = {"outputs": {"image": {"format": "png"}}}
    await first.call("PUT", "/recipes/own-recipe", recipe)
    async with first.client() as client:
        task = await client.upload(photo(1), filename="beach-photo.png", batch="holiday-batch", recipe="own-recipe")
        waiting = await client.upload(photo(2), filename="beach-photo-2.png", batch="holiday-batch")
    assert await finish_one(keyed, photo(3)) == task.id
    upload = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    async with first.http.post(f"{first.url}/uploads", headers={**first.headers, **upload}) as answer:
        partial = answer.headers["Location"].rpartition("/")[2]
    secrets = {*NAMES, task.id, waiting.id, task.input.digest, partial, "first"}
    fill = {"{id}": [task.id, waiting.id, partial], "{name}": ["own-recipe", "holiday-batch"]}
    asked = 0
    seen_by_first = set()
    for route, known in keyed.services["master"].routes.items():
        reads = route.method == "GET" and known.path not in ("/task/next", "/events", "/task/{id}/events")
        if not reads or not known.access & (Access.READ | Access.UPLOAD | Access.ADMINISTER):
            continue
        for path in paths(known.path, fill):
            for query in ("", f"?tasks={task.id}", *(f"?{given}" for given in NAMED), f"?task={task.id}"):
                for api in (first, second):
                    text = await body_of(api, path + query)
                    found = {word for word in secrets if word in text and word not in path + query}
                    if api is first:
                        seen_by_first |= found
                    else:
                        assert not found, (path + query, found, text[:500])
                        asked += 1
    assert asked > 80
    assert seen_by_first >= {*NAMES, task.id, waiting.id, "first"}, "the first tenant must see its own"
    for path in ("/events?after=0", f"/task/{task.id}/events?after=0", f"/events?after=0&task={task.id}"):
        text = await body_of(second, path, accept="application/json")
        assert '"events":[]' in text or "not_found" in text, text[:300]
    assert task.id in await body_of(first, "/events?after=0", accept="application/json")


def paths(path: str, fill: dict[str, list[str]]) -> list[str]:
    (placeholder,) = re.findall(r"\{\w+\}", path) or [None]
    return [path] if placeholder is None else [path.replace(placeholder, value) for value in fill[placeholder]]


async def body_of(api: Api, path: str, accept: str = "*/*") -> str:
    async with api.http.get(api.url + path, headers={**api.headers, "Accept": accept}) as answer:
        assert answer.status < 500, (path, answer.status)
        return str(dict(answer.headers)) + (await answer.read()).decode(errors="replace")


async def test_a_second_tenant_changes_nothing(keyed, root):
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    await first.call("PUT", "/recipes/own", {"outputs": {"image": {"format": "png"}}})
    async with first.client() as client:
        task = await client.upload(photo(1))
    for method, path in (("POST", "/cancel"), ("POST", "/retry"), ("POST", "/release"), ("DELETE", "")):
        await second.call(method, f"/task/{task.id}{path}", status=404)
    await second.call("DELETE", "/recipes/own", status=404)
    for chosen in ({"tasks": [task.id]}, {"filter": {}}):
        done = await second.call("POST", "/tasks/actions", {"action": "delete", **chosen})
        assert done["changed"] == 0
    await second.call("POST", f"/task/{task.id}/links", {}, status=404)
    await second.call("POST", "/preview", {"task": task.id, "recipe": {"outputs": {"image": {}}}}, status=404)
    assert (await first.call("GET", f"/task/{task.id}"))["state"] == 0
    # Naming a tenant in a header or a query gives no access to its objects.
    await second.call("GET", f"/task/{task.id}", headers=acting("first"), status=403)
    assert (await root.call("GET", f"/task/{task.id}", headers=acting("first")))["tenant"] == "first"
    for path in (f"/task/{task.id}?tenant=first", "/tasks?tenant=first", f"/task/{task.id}/recipe?tenant=first"):
        await second.call("GET", path, status=403)
        assert await root.call("GET", path)
    await root.call("DELETE", f"/task/{task.id}?tenant=second", status=404)
    await root.call("GET", f"/task/{task.id}", status=404)


async def test_recipes_that_do_the_same_share_nothing_that_a_tenant_wrote(keyed, root):
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    named = {"outputs": {"image": {"format": "png"}}, "name": "merger", "description": "Embargo until May"}
    await first.call("PUT", "/recipes/own", named)
    for api, wanted in ((first, "own"), (second, json.dumps(named | {"description": "", "name": "custom"}))):
        async with api.client() as client:
            task = await client.upload(photo(1), recipe=wanted)
        found = await api.call("GET", f"/task/{task.id}/recipe")
        assert (found["name"], found["spec"]["name"]) == (task.recipe, "custom")
        assert found["spec"]["description"] == ""
        assert found["spec"]["outputs"]["image"]["format"] == "png"
    assert (await first.call("GET", "/recipes/own"))["spec"]["description"] == "Embargo until May"
    checked = await first.call("POST", "/recipes/check", named)
    assert (checked["name"], checked["spec"]["description"]) == ("merger", "Embargo until May")
    leases = await root.call("POST", "/lease", {"worker": {"id": "w", "engine": "engine 1"}, "n": 2, "wait": 5.0})
    assert [lease["spec"]["description"] for lease in leases] == ["", ""], "nor is it stored"


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "application/xhtml+xml"])
async def test_a_result_that_a_browser_would_run_is_refused(keyed, root, kind):
    first = await keyed_tenant(root, "first")
    async with first.client() as client:
        task = await client.upload(photo(1))
    worker = {"id": "w", "engine": "engine 1"}
    (lease,) = await root.call("POST", "/lease", {"worker": worker, "wait": 5.0})
    storage, page = keyed.url("storage"), b"<script>alert(1)</script>"
    async with root.http.post(f"{storage}/blobs", data=page, headers=keyed.credentials) as answer:
        blob = await answer.json()
    output = {"name": "image", "digest": blob["digest"], "size": len(page), "media_type": kind, "width": 1, "height": 1}
    outcome = {"kind": "finished", "lease": lease["id"], "outputs": [output]}
    for service in ("master", "db"):
        url = f"{keyed.url(service)}/outcomes"
        async with root.http.post(url, json=[outcome], headers=keyed.credentials) as answer:
            assert (answer.status, "media_type" in await answer.text()) == (400, True)
    assert (await first.call("GET", f"/task/{task.id}"))["state"] == State.WORKING
    honest = outcome | {"outputs": [output | {"media_type": "image/png"}]}
    await root.call("POST", "/outcomes", [honest])
    assert (await first.call("GET", f"/task/{task.id}"))["state"] == State.FINISHED


async def test_a_photo_of_another_tenant_is_not_reused(keyed, root):
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    async with first.client() as mine, second.client() as theirs:
        await mine.upload(photo(1), idempotency_key="k")
        await finish_one(keyed, photo(2))
        assert (await mine.upload(photo(1))).reused
        other = await theirs.upload(photo(1), idempotency_key="k")
    assert (other.reused, other.state, other.tenant) == (False, 0, "second")


async def test_a_change_wakes_its_own_tenant(keyed, root):
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    async with first.client() as mine, second.client() as theirs:
        task = await mine.upload(photo(1))
        waiting = asyncio.create_task(mine.changes(task.seq, wait=10.0))
        other = asyncio.create_task(theirs.changes(0, wait=1.0))
        await mine.cancel(task.id)
        page = await waiting
        assert [event.kind for event in page.events] == ["cancelled"]
        assert (await other).events == []


@pytest.mark.slow
async def test_limits_answer_429_with_the_time_to_wait(keyed, root):
    limited = await keyed_tenant(root, "limited", waiting=1)
    other = await keyed_tenant(root, "other")
    async with limited.client() as client:
        await client.upload(photo(1))
    async with limited.http.post(
        f"{limited.url}/task", data={"image": io.BytesIO(photo(2))}, headers=limited.headers
    ) as answer:
        assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (429, True)
    async with other.client() as client:
        await asyncio.gather(*(client.upload(photo(number)) for number in range(5)))


async def test_a_tenants_stored_bytes_are_limited(keyed, root):
    first, second, third = photo(1), photo(2), photo(3)
    limited = await keyed_tenant(root, "limited", bytes=len(first) + len(second) // 2)
    other = await keyed_tenant(root, "other")

    async def sent(data: bytes) -> tuple[int, str]:
        form = {"image": io.BytesIO(data)}
        async with limited.http.post(f"{limited.url}/task", data=form, headers=limited.headers) as answer:
            assert answer.status == 200 or int(answer.headers["Retry-After"]) >= 1
            return answer.status, await answer.text()

    assert (await sent(first))[0] == 200
    status, sentence = await sent(second)
    assert status == 429
    assert "bytes" in sentence
    async with other.client() as client:
        await client.upload(third)
    (task,) = [task["id"] for task in (await limited.call("GET", "/tasks"))["tasks"]]
    await limited.call("POST", f"/task/{task}/cancel")
    await limited.call("DELETE", f"/task/{task}", status=204)
    async with asyncio.timeout(30):
        while status != 200:  # the count is updated with a delay
            status, _ = await sent(second)


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"waiting": 1}, {"bytes": len(photo(1))}, {"bytes": len(photo(1)) + 10}])
@pytest.mark.parametrize("route", ["/task", "/tasks"])
async def test_an_upload_that_has_used_up_the_room_may_be_repeated(keyed, root, route, limits):
    limited = await keyed_tenant(root, "limited", **limits)

    async def sent(number: int, key: str | None = None) -> tuple[int, str]:
        headers = {**limited.headers, **({"Idempotency-Key": key} if key else {})}
        form = {"image": io.BytesIO(photo(number))}
        async with limited.http.post(limited.url + route, data=form, headers=headers) as answer:
            return answer.status, await answer.text()

    def id_of(text: str) -> str:
        found = json.loads(text)
        return found["id"] if route == "/task" else found[0]["task"]["id"]

    status, first = await sent(1, "once")
    assert status == 200
    async with asyncio.timeout(30):
        sentence = ""  # the numbers of the master, which refuses an upload before db does, are a few seconds old
        while not re.search("has 1 task waiting|bytes kept|leave 10 bytes", sentence):
            status, sentence = await sent(2)
            assert status == 429
    status, again = await sent(1, "once")
    assert (status, id_of(again)) == (200, id_of(first))
    assert (await sent(1, "another"))[0] == 429
    assert len((await limited.call("GET", "/tasks"))["tasks"]) == 1


async def test_a_tenants_rate_of_requests_is_limited(keyed, root):
    limited = await keyed_tenant(root, "limited", requests=5)
    other = await keyed_tenant(root, "other")
    statuses = []
    for _ in range(30):
        async with limited.http.get(f"{limited.url}/summary", headers=limited.headers) as answer:
            statuses.append(answer.status)
            if answer.status == 429:
                assert int(answer.headers["Retry-After"]) >= 1
    assert statuses.count(200) >= 10
    assert 429 in statuses
    for _ in range(30):
        await other.call("GET", "/summary")


async def test_an_upload_is_locked_while_its_tenant_sends_too_many_requests(keyed, root):
    """After any other error of HEAD, clients open another upload and send everything again."""
    limited = await keyed_tenant(root, "limited", requests=1)
    path, headers = "/uploads/any", {**limited.headers, "Tus-Resumable": "1.0.0"}
    statuses = [await _status(limited.http.head(limited.url + path, headers=headers)) for _ in range(5)]
    assert statuses.count(404) >= 2
    assert set(statuses) == {404, 423}
    async with limited.http.delete(limited.url + path, headers=headers) as answer:
        assert (answer.status, answer.headers["Tus-Resumable"]) == (429, "1.0.0")


async def test_uploads_at_once_are_counted_by_tenant(keyed, root):
    limited = await keyed_tenant(root, "limited", uploads=1)
    other = await keyed_tenant(root, "other")
    release, begun = asyncio.Event(), asyncio.Event()

    async def slow():
        boundary = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        yield boundary + photo(1)[:100]
        begun.set()
        await release.wait()
        yield photo(1)[100:] + b"\r\n--x--\r\n"

    headers = {**limited.headers, "Content-Type": "multipart/form-data; boundary=x"}
    sending = asyncio.create_task(_status(limited.http.post(f"{limited.url}/task", data=slow(), headers=headers)))
    await begun.wait()
    refused = 200
    while refused == 200:  # until the master has read the first bytes of the slow one
        refused = await _status(
            limited.http.post(f"{limited.url}/task", data={"image": io.BytesIO(photo(2))}, headers=limited.headers)
        )
    assert refused == 429
    async with other.client() as client:
        await client.upload(photo(3))
    release.set()
    assert await sending == 200


async def _status(request) -> int:
    async with request as answer:
        return answer.status


async def test_a_disabled_tenant_is_refused_within_seconds_and_its_tasks_go_on(keyed, root):
    first = await keyed_tenant(root, "first")
    async with first.client() as client:
        task = await client.upload(photo(1))
        url = (await first.call("POST", f"/task/{task.id}/links", {"original": True}))["url"]
        assert await _status(root.http.get(url)) == 200
        await root.call("PUT", "/tenants/first", {"disabled": True})
        assert await _status(root.http.get(url)) == 403
        with pytest.raises(Error) as refused:
            await client.upload(photo(2))
        assert refused.value.code is Code.FORBIDDEN
    await finish_one(keyed, photo(3))


async def test_a_tenant_reads_nothing_about_an_earlier_one_that_had_its_id(keyed, root):
    earlier = await keyed_tenant(root, "again")
    async with earlier.client() as client:
        task = await client.upload(photo(1), batch="secret")
        await client.cancel(task.id)
        await client.delete(task.id)
    for number in range(3):
        await earlier.call("PUT", f"/recipes/secret-{number}", {"outputs": {"image": {"format": "png"}}})
    await root.call("DELETE", "/tenants/again", status=204)
    later = await keyed_tenant(root, "again")
    async with later.client() as client:
        own = await client.upload(photo(2))
    json_alone = {"Accept": "application/json"}
    for query in ("after=0", "after=0&wait=10"):  # from db, and from the master's memory
        page = await later.call("GET", f"/events?{query}", headers=json_alone)
        assert {event["task"] for event in page["events"]} == {own.id}
    page = await later.call("GET", f"/events?after=0&task={task.id}", headers=json_alone)
    assert page["events"] == []
    for number in range(2):
        await later.call("PUT", f"/recipes/own-{number}", {"outputs": {"image": {"format": "png"}}})
    told = [json.loads(line) for line in (await later.call("GET", "/audit?limit=3")).splitlines()]
    assert [line["subject"] for line in told[1:]] == ["own-0", "own-1"], "a page must not be short before the end"
    assert told[0]["action"] == "keys.create"
    lines = (await root.call("GET", "/audit")).splitlines()
    assert [json.loads(line)["subject"] for line in lines if "recipes.save" in line] == [
        *(f"secret-{n}" for n in range(3)),
        *(f"own-{n}" for n in range(2)),
    ]


async def test_only_operators_manage_tenants(root):
    first = await keyed_tenant(root, "first", waiting=10)
    seen = {each["tenant"]["id"]: each for each in await root.call("GET", "/tenants")}
    assert seen["first"]["tenant"]["limits"]["waiting"] == 10
    assert [each["tenant"]["id"] for each in await first.call("GET", "/tenants")] == ["first"]
    await first.call("POST", "/tenants", {"id": "mine"}, status=403)
    await first.call("PUT", "/tenants/first", {"weight": 100}, status=403)
    await first.call("DELETE", "/tenants/default", status=403)
    await root.call("POST", "/tenants", {"id": "first"}, status=409)
    await root.call("POST", "/tenants", {"id": "Not a name"}, status=400)
    await root.call("DELETE", "/tenants/first", status=204)
    await first.call("GET", "/summary", status=401)


async def test_an_operator_is_told_what_no_tenant_can_be_called(root):
    await root.call("GET", "/tasks", status=400, headers=acting(""))  # as if a script's variable were not set
    refused = await root.call("GET", "/tasks", status=400, headers=acting("Acme"))
    assert "A tenant's id has 1 to 32 of a-z, 0-9 and -" in refused


async def test_an_operator_is_told_that_there_is_no_such_tenant(root):
    """A misspelt name would otherwise look like a tenant that has nothing, and whose tasks were all deleted."""
    await keyed_tenant(root, "first")
    everything = {"action": "delete", "filter": {}}
    for method, path, body in (
        *(("GET", path, None) for path in ("/tasks", "/tasks/counts", "/summary", "/batches", "/keys", "/recipes")),
        *(("GET", path, None) for path in ("/webhooks/calls", "/archive", "/task/1-abcdefghij/result")),
        ("POST", "/tasks/actions", everything),
    ):
        refused = await root.call(method, path, body, status=404, headers=acting("frist"))
        assert "There is no tenant frist." in str(refused), path
    assert (await root.call("GET", "/tasks", headers=acting("first")))["tasks"] == []
    await root.call("DELETE", "/tenants/first", status=204)
    page = await root.call("GET", "/events?after=0", headers={"Accept": "application/json", **acting("first")})
    assert page["events"] == [], "operators may ask about a deleted tenant"
