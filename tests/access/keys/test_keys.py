"""Test API keys, sessions, signed links and the audit log at the master."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from access.tenants import ALL, Api, acting, finish_one, keyed_tenant
from safelight.master.access.refusals import Refusals
from safelight.wire import accounts
from support.photos import photo


@pytest.fixture
async def root(keyed, http) -> Api:
    return Api(http, keyed.url("master"), keyed.key)


async def until_refused(api: Api) -> float:
    """Wait until a key is refused; return the seconds that this took."""
    start = time.monotonic()
    while True:
        async with api.http.get(f"{api.url}/summary", headers=api.headers) as answer:
            if answer.status == 401:
                return time.monotonic() - start
        await asyncio.sleep(0.05)


async def test_scopes_say_what_a_key_may_do(root):
    for scopes, read, upload, operate, administer in (
        (["read"], 200, 403, 403, 403),
        (["upload"], 403, 400, 403, 403),
        (["operate"], 403, 403, 404, 403),
        (["administer"], 200, 400, 404, 200),
    ):
        made = await root.call("POST", "/keys", {"scopes": scopes})
        api = Api(root.http, root.url, made["token"])
        await api.call("GET", "/summary", status=read)
        await api.call("POST", "/task", status=upload)
        await api.call("POST", "/task/1-aaaaaaaaaa/cancel", status=operate)
        await api.call("GET", "/keys", status=administer)


async def test_a_key_is_rotated_with_an_overlap_and_revoked_within_seconds(root):
    first = await keyed_tenant(root, "first")
    (key,) = await first.call("GET", "/keys")
    assert not {"digest", "previous"} & key.keys()
    made = await first.call("POST", f"/keys/{key['id']}/rotate", {"overlap": 60})
    assert made["token"].split("_")[:2] == ["sl", key["id"]]
    again = Api(first.http, first.url, made["token"])
    for api in (first, again):
        await api.call("GET", "/summary")
    made = await again.call("POST", f"/keys/{key['id']}/rotate", {"overlap": 0})
    assert await until_refused(again) < 10
    last = Api(first.http, first.url, made["token"])
    await last.call("GET", "/summary")
    await last.call("DELETE", f"/keys/{key['id']}", status=204)
    assert await until_refused(last) < 10


async def test_a_key_expires(root):
    made = await root.call("POST", "/keys", {"expires_in": 0.5, "scopes": ["read"]})
    assert await until_refused(Api(root.http, root.url, made["token"])) < 10


async def test_a_key_without_administer_can_rotate_only_itself(root):
    first = await keyed_tenant(root, "first")
    made = [await first.call("POST", "/keys", {"scopes": ["read"]}) for _ in range(2)]
    mine, other = (each["key"]["id"] for each in made)
    api = Api(first.http, first.url, made[0]["token"])
    await api.call("POST", f"/keys/{other}/rotate", {}, status=403)
    await api.call("DELETE", f"/keys/{other}", status=403)
    await api.call("POST", f"/keys/{mine}/rotate", {})
    second = await keyed_tenant(root, "second")
    await second.call("DELETE", f"/keys/{mine}", status=404)


async def test_wrong_keys_are_refused_alike(root):
    first = await keyed_tenant(root, "first")
    for token in (first.token + "a", first.token[:-1], "sl_unknown_aaaa", "sl__", "x" * 300):
        await Api(first.http, first.url, token).call("GET", "/summary", status=401)


def test_a_secret_that_is_not_text_is_wrong():
    key = accounts.ApiKey(id="a", scopes=[accounts.Scope.READ], digest=accounts.digest("right"))
    assert key.matches("right", 0.0)
    assert not key.matches("\udcff", 0.0)  # a byte that is not UTF-8, as aiohttp passes it on


async def test_sessions_start_with_a_key_and_end(root):
    first = await keyed_tenant(root, "first")
    url, http = root.url, root.http
    page = {"Origin": url}
    async with http.post(f"{url}/session", json={"key": first.token}, headers=page) as answer:
        cookie = answer.cookies["safelight_session"]
        told = await answer.json()
    assert (told["tenant"], told["scopes"], told["signed_in"], told["operator"]) == ("first", ALL, True, False)
    assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/"
    assert first.token not in cookie.value
    signed_in = {"Cookie": f"safelight_session={cookie.value}"}
    for headers, status in ((signed_in, 200), ({}, 401), ({"Cookie": "safelight_session=x"}, 401)):
        async with http.get(f"{url}/summary", headers=headers) as answer:
            assert answer.status == status
    # A cookie has no effect for a page of another site, or for a request that does not name its page.
    for headers, status in (({}, 403), ({"Origin": "https://evil.example"}, 403), (page, 404)):
        async with http.post(f"{url}/task/1-aaaaaaaaaa/cancel", headers={**signed_in, **headers}) as answer:
            assert answer.status == status, headers
    async with http.delete(f"{url}/session", headers={**signed_in, **page}) as answer:
        assert answer.status == 204
    async with http.get(f"{url}/session", headers=signed_in) as answer:
        assert (await answer.json())["signed_in"] is False
    async with http.get(f"{url}/summary", headers=signed_in) as answer:
        assert answer.status == 401


async def test_a_session_ends_with_its_key(root):
    first = await keyed_tenant(root, "first")
    async with root.http.post(f"{root.url}/session", json={"key": first.token}) as answer:
        cookie = answer.cookies["safelight_session"].value
    (key,) = await first.call("GET", "/keys")
    await root.call("DELETE", f"/keys/{key['id']}", headers=acting("first"), status=204)
    start, status = time.monotonic(), 200
    while status == 200:
        async with root.http.get(f"{root.url}/summary", headers={"Cookie": f"safelight_session={cookie}"}) as answer:
            status = answer.status
    assert status == 401
    assert time.monotonic() - start < 30


async def test_a_sign_in_link_works_once(root):
    link = await root.call("POST", "/sign-in-links")
    address, _, ticket = link["url"].partition("#/sign-in/")
    assert address == f"{root.url}/"
    first = await keyed_tenant(root, "first")
    await first.call("POST", "/sign-in-links", status=403)
    statuses = []
    for _ in range(2):
        async with root.http.post(f"{root.url}/session", json={"ticket": ticket}) as answer:
            statuses.append(answer.status)
            if answer.status == 200:
                assert (await answer.json())["operator"] is True
    assert statuses == [200, 401]


async def test_signed_links_show_one_thing_until_they_end(keyed, root):
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    async with first.client() as client:
        task = await client.upload(photo(1))
        other = await client.upload(photo(2))
    await finish_one(keyed, photo(3))
    result = await first.call("POST", f"/task/{task.id}/links", {"output": "image", "expires_in": 60})
    original = await first.call("POST", f"/task/{task.id}/links", {"original": True})
    short = await first.call("POST", f"/task/{task.id}/links", {"expires_in": 1})
    await first.call("POST", f"/task/{task.id}/links", {"output": "image", "original": True}, status=400)

    async def get(url: str, headers=None) -> int:
        async with root.http.get(url, headers=headers or {}) as answer:
            await answer.read()
            return answer.status

    assert result["url"].startswith(f"{root.url}/task/{task.id}/result?output=image&link=")
    async with root.http.get(result["url"] + "&download=true") as answer:
        assert await answer.read() == photo(3)
    assert await get(original["url"]) == 200
    assert await get(result["url"], second.headers) == 404, "a key takes precedence over a link"
    tampered = (
        result["url"].replace("output=image", "output=other"),
        result["url"].replace("/result", "/original"),
        result["url"].replace(task.id, other.id),
        result["url"].replace(".first.", ".second."),
        result["url"][:-1],
        original["url"].replace("/original", ""),
        original["url"].replace("/original", "/rendition"),
        f"{root.url}/tasks?link={result['url'].partition('link=')[2]}",
    )
    for url in tampered:
        assert await get(url) == 401, url
    while await get(short["url"]) == 200:
        pass
    assert await get(short["url"]) == 401
    await first.call("POST", "/links/rotate", {}, status=204)
    assert await get(result["url"]) == await get(original["url"]) == 401
    again = await first.call("POST", f"/task/{task.id}/links", {})
    assert await get(again["url"]) == 200


async def test_the_audit_log_says_who_made_a_link_to_what_and_until_when(keyed, root):
    first = await keyed_tenant(root, "first")
    async with first.client() as client:
        task = await client.upload(photo(1))
    await finish_one(keyed, photo(3))
    asked = ({"output": "image"}, {"original": True}, {"expires_in": 1})
    links = [await first.call("POST", f"/task/{task.id}/links", one) for one in asked]
    lines = [json.loads(line) for line in (await first.call("GET", "/audit")).splitlines()]
    made = [line for line in lines if line["action"] == "links.create"]
    assert {(line["who"], line["subject"]) for line in made} == {("first/key of first", task.id)}
    assert [line["detail"] for line in made] == [
        {"output": one.get("output", ""), "original": one.get("original", False), "expires": link["expires"]}
        for one, link in zip(asked, links, strict=True)
    ]


async def test_the_audit_log_says_who_did_what(root):
    first = await keyed_tenant(root, "first")
    await first.call("PUT", "/recipes/own", {"outputs": {"image": {"format": "png"}}})
    async with first.client() as client:
        task = await client.upload(photo(1))
    await first.call("POST", f"/task/{task.id}/cancel")  # changes to a tenant's own tasks are not in the audit log
    await root.call("POST", f"/task/{task.id}/retry", headers=acting("first"))
    for act in ({"action": "cancel", "filter": {"state": "waiting"}}, {"action": "delete", "tasks": [task.id]}):
        await root.call("POST", "/tasks/actions", act, headers=acting("first"))
    await root.call("POST", "/tenants", {"id": "first"}, status=409)
    lines = [json.loads(line) for line in (await root.call("GET", "/audit")).splitlines()]
    told = [(line["who"], line["action"], line["subject"], line["tenant"], line["outcome"]) for line in lines]
    (key,) = await first.call("GET", "/keys")
    assert told == [
        ("default/cluster", "tenants.create", "first", "first", "begun"),
        ("default/cluster", "keys.create", key["id"], "first", "begun"),
        ("first/key of first", "recipes.save", "own", "first", "begun"),
        ("default/cluster", "tasks.retry", task.id, "first", "begun"),
        ("default/cluster", "tasks.cancel", "", "first", "begun"),
        ("default/cluster", "tasks.delete", task.id, "first", "begun"),
        ("default/cluster", "tenants.create", "first", "first", "begun"),
        ("default/cluster", "tenants.create", "first", "first", "conflict"),
    ]
    assert [line["detail"] for line in lines[4:6]] == [{"filter": {"state": "waiting"}}, {"tasks": 1}]
    assert lines[0]["via"] == "cluster"
    assert lines[0]["remote"] == "127.0.0.1"
    assert first.token.split("_")[2] not in json.dumps(lines)
    mine = [json.loads(line)["tenant"] for line in (await first.call("GET", "/audit")).splitlines()]
    assert set(mine) == {"first"}


async def test_workers_are_drained_by_operators_alone_and_every_try_is_in_the_audit_log(root):
    """A worker serves every tenant, so it belongs to none; the same holds for storage's figures."""
    first = await keyed_tenant(root, "first")
    await first.call("POST", "/workers/w/drain", status=403)
    await first.call("GET", "/storage", status=403)
    await root.call("GET", "/storage")
    await root.call("POST", "/workers/w/drain", status=404)
    lines = [json.loads(line) for line in (await root.call("GET", "/audit")).splitlines()][2:]
    told = [(line["who"], line["action"], line["subject"], line["outcome"]) for line in lines]
    assert told == [
        ("first/key of first", "workers.drain", "w", "begun"),
        ("first/key of first", "workers.drain", "w", "forbidden"),
        ("default/cluster", "workers.drain", "w", "begun"),
        ("default/cluster", "workers.drain", "w", "not_found"),
    ]


async def test_sign_ins_that_fail_are_in_the_audit_log_and_do_not_fill_it(root):
    first = await keyed_tenant(root, "first")
    (key,) = await first.call("GET", "/keys")
    wrong = first.token[:-4] + "aaaa"
    for given in ({"key": wrong}, {"ticket": "b" * 40}, *[{"key": "guessed"}] * 40):
        async with root.http.post(f"{root.url}/session", json=given) as answer:
            assert answer.status == 401
    lines = [json.loads(line) for line in (await root.call("GET", "/audit")).splitlines()]
    failed = [line for line in lines if line["outcome"] == "unauthenticated"]
    assert [(line["who"], line["via"], line["subject"], line["remote"]) for line in failed[:3]] == [
        ("nobody", "key", key["id"], "127.0.0.1"),
        ("nobody", "ticket", "", "127.0.0.1"),
        ("nobody", "key", "", "127.0.0.1"),
    ]
    assert {line["action"] for line in failed} == {"sessions.start"}
    assert 5 <= len(failed) <= 7
    assert wrong.split("_")[2] not in json.dumps(lines)
    assert [json.loads(line) for line in (await first.call("GET", "/audit")).splitlines()][-1]["outcome"] == "begun"


async def test_the_body_of_a_sign_in_is_small(root):
    """Strangers send it, so it must not fill memory, whether they say its length or not."""

    async def chunks():
        while True:
            yield b" " * 65536

    for body in (b" " * 65536, chunks()):
        async with asyncio.timeout(30), root.http.post(f"{root.url}/session", data=body) as answer:
            assert answer.status == 413


def test_failures_are_counted_by_address_and_all_together():
    refusals = Refusals()
    assert [refusals.admit("a", 0.0) for _ in range(7)] == [0] * 5 + [None] * 2
    assert refusals.admit("b", 0.0) == 2
    assert refusals.admit("a", 60.0) == 0
    assert sum(refusals.admit(f"address {number}", 61.0) is not None for number in range(200)) == 60
    assert refusals.admit("another", 62.5) == 140
    assert len(refusals._buckets) < 10_002  # noqa: SLF001 - strangers can fill no more memory
    for number in range(20_000):
        refusals.admit(f"more {number}", 70.0)
    assert len(refusals._buckets) <= 10_000  # noqa: SLF001


async def test_users_of_a_tenant_that_nobody_has_created_are_told_so(plane, http):
    await plane.start_all(master={"trusted_proxies": "127.0.0.1", "user_header": "X-User", "user_tenant": "acme"})
    async with http.get(f"{plane.url('master')}/summary", headers={"X-User": "ann"}) as answer:
        assert (answer.status, (await answer.json())["detail"]) == (401, "There is no tenant acme, or not any more.")


async def test_only_a_trusted_proxy_can_name_its_user(plane, http):
    settings = {"user_header": "X-Forwarded-User", "user_tenant": "default", "user_scopes": "read"}
    for proxies, status in (("127.0.0.1", 200), ("192.0.2.1", 401)):
        for name in ("keyvaluestore", "db", "storage"):
            if name not in plane.services:
                await plane.start(name, trusted_proxies="192.0.2.1")
        master = await plane.start("master", trusted_proxies=proxies, **settings)
        for name in ("db", "storage"):
            await master.discovery.wait_for(name)
        user = {"X-Forwarded-User": "ann@example.org"}
        async with http.get(f"{master.url}/summary", headers=user) as answer:
            assert answer.status == status
        async with http.get(f"{master.url}/session", headers=user) as answer:
            told = await answer.json()
        assert told["signed_in"] is (status == 200)
        if status == 200:
            assert (told["name"], told["via"], told["scopes"]) == ("ann@example.org", "proxy", ["read"])
            async with http.post(f"{master.url}/task/1-aaaaaaaaaa/cancel", headers=user) as answer:
                assert answer.status == 403
            for wrong in ([("X-Forwarded-User", "a"), ("X-Forwarded-User", "b")], [("X-Forwarded-User", "")]):
                async with http.get(f"{master.url}/summary", headers=wrong) as answer:
                    assert answer.status == 401
        async with http.get(f"{master.url}/summary") as answer:
            assert answer.status == 401


async def test_a_replaced_secret_cannot_change_its_key(root):
    """Otherwise, anyone who has found the old secret could take over the key while both secrets are valid."""
    first = await keyed_tenant(root, "first")
    (key,) = await first.call("GET", "/keys")
    path = f"/keys/{key['id']}"
    made = await first.call("POST", f"{path}/rotate", {"overlap": 3600})
    async with root.http.post(f"{root.url}/session", json={"key": first.token}) as answer:
        cookie = {"Cookie": f"safelight_session={answer.cookies['safelight_session'].value}", "Origin": root.url}
    for method, where in (("POST", f"{path}/rotate"), ("DELETE", path)):
        await first.call(method, where, {}, status=409)
        async with root.http.request(method, root.url + where, json={}, headers=cookie) as answer:
            assert answer.status == 409
    await first.call("GET", "/summary")
    await Api(first.http, first.url, made["token"]).call("POST", f"{path}/rotate", {"overlap": 3600})
    await first.call("GET", "/summary")  # another rotation ends no overlap
    await first.call("POST", f"{path}/rotate", {}, status=409)


@pytest.mark.slow
async def test_a_session_ends_with_the_secret_that_it_was_given_for(root):
    first = await keyed_tenant(root, "first")
    (key,) = await first.call("GET", "/keys")

    async def signed_in(token: str) -> dict[str, str]:
        async with root.http.post(f"{root.url}/session", json={"key": token}) as answer:
            return {"Cookie": f"safelight_session={answer.cookies['safelight_session'].value}"}

    before = await signed_in(first.token)
    made = await first.call("POST", f"/keys/{key['id']}/rotate", {"overlap": 1.5})
    meanwhile, after = await signed_in(first.token), await signed_in(made["token"])
    start = time.monotonic()
    for headers in (before, meanwhile):
        status = 200
        while status == 200 and time.monotonic() - start < 10:
            async with root.http.get(f"{root.url}/summary", headers=headers) as answer:
                status = answer.status
        assert status == 401
    assert time.monotonic() - start > 1
    async with root.http.get(f"{root.url}/summary", headers=after) as answer:
        assert answer.status == 200


async def test_concurrent_sign_ins_and_rotations_happen_once(root):
    """Many clients use one sign-in link; many rotate one key, which is also revoked meanwhile."""
    ticket = (await root.call("POST", "/sign-in-links"))["url"].partition("#/sign-in/")[2]

    async def sign_in() -> int:
        async with root.http.post(f"{root.url}/session", json={"ticket": ticket}) as answer:
            return answer.status

    assert sorted(await asyncio.gather(*(sign_in() for _ in range(20)))) == [200, *[401] * 19]
    first = await keyed_tenant(root, "first")
    path = f"/keys/{(await first.call('GET', '/keys'))[0]['id']}"

    async def rotate() -> str:
        sent = {**root.headers, **acting("first")}
        async with root.http.post(f"{root.url}{path}/rotate", json={"overlap": 0}, headers=sent) as answer:
            return (await answer.json())["token"] if answer.status == 200 else ""

    async def works(token: str) -> bool:
        async with root.http.get(f"{root.url}/summary", headers={"Authorization": f"Bearer {token}"}) as answer:
            return answer.status == 200

    tokens = await asyncio.gather(*(rotate() for _ in range(10)))
    assert sum([await works(token) for token in (first.token, *tokens)]) == 1
    revoked = root.call("DELETE", path, headers=acting("first"), status=204)
    tokens, _ = await asyncio.gather(asyncio.gather(*(rotate() for _ in range(10))), revoked)
    assert not any([await works(token) for token in tokens if token])
