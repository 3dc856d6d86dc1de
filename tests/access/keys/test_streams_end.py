"""Test that event streams and long polls end with the credential that opened them."""

from __future__ import annotations

import asyncio

import pytest

from access.tenants import Api, keyed_tenant
from safelight.master.live import events
from safelight.master.live.feed import Feed
from support.photos import photo


@pytest.fixture
async def root(keyed, http) -> Api:
    return Api(http, keyed.url("master"), keyed.key)


@pytest.mark.parametrize("ended", ["key", "session", "tenant"])
async def test_an_event_stream_ends_with_the_credential_that_opened_it(root, monkeypatch, ended):
    monkeypatch.setattr(events, "_KEEP_ALIVE", 0.1)
    monkeypatch.setattr(events, "_ADMITTED_FOR", 0.0)
    first = await keyed_tenant(root, "first")
    (key,) = await first.call("GET", "/keys")
    page = {"Origin": root.url}
    async with root.http.post(f"{root.url}/session", json={"key": first.token}, headers=page) as answer:
        session = {"Cookie": f"safelight_session={answer.cookies['safelight_session'].value}"}
    async with root.http.get(f"{root.url}/events", headers=session if ended == "session" else first.headers) as answer:
        for _ in range(10):  # a few keep-alives
            assert await answer.content.readline()
        if ended == "key":
            await first.call("DELETE", f"/keys/{key['id']}", status=204)
        elif ended == "session":
            assert await status_of(root.http.delete(f"{root.url}/session", headers={**session, **page})) == 204
        else:
            await root.call("PUT", "/tenants/first", {"disabled": True})
        async with asyncio.timeout(20):
            await answer.read()


async def test_a_long_poll_returns_nothing_to_a_key_that_was_revoked_meanwhile(root, monkeypatch):
    waiting, read = asyncio.Event(), Feed.read

    async def noted(feed, *args, **options):
        waiting.set()
        return await read(feed, *args, **options)

    monkeypatch.setattr(Feed, "read", noted)
    first = await keyed_tenant(root, "first")
    made = await first.call("POST", "/keys", {"scopes": ["read"]})
    headers = {"Authorization": f"Bearer {made['token']}", "Accept": "application/json"}
    polling = asyncio.create_task(status_of(root.http.get(f"{root.url}/events?wait=20", headers=headers)))
    await waiting.wait()
    await first.call("DELETE", f"/keys/{made['key']['id']}", status=204)
    async with first.client() as client:
        await client.upload(photo(1))
    assert await polling == 401


async def test_an_open_stream_does_not_count_as_further_requests(root, monkeypatch):
    monkeypatch.setattr(events, "_KEEP_ALIVE", 0.01)
    monkeypatch.setattr(events, "_ADMITTED_FOR", 0.0)
    limited = await keyed_tenant(root, "limited", requests=1)  # of which two may come at once
    async with root.http.get(f"{root.url}/events", headers=limited.headers) as answer:
        for _ in range(30):
            assert await answer.content.readline()
        await limited.call("GET", "/summary")


async def status_of(request) -> int:
    async with request as answer:
        return answer.status
