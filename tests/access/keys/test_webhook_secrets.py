"""Test that each tenant's webhook calls are signed with the tenant's own secret."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from access.conftest import ELSEWHERE
from access.tenants import Api, finish_one, keyed_tenant
from support.photos import photo

GIVEN = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
async def root(plane, http) -> Api:
    await plane.start_all(
        trusted_proxies=ELSEWHERE,
        master={"webhook_allow_private": True, "webhook_secret": GIVEN, "webhook_retry": 0.05},
    )
    return Api(http, plane.url("master"), plane.key)


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, asyncio.Queue]]:
    calls: asyncio.Queue = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        calls.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", calls
    await runner.cleanup()


def genuine(secret: str, call: tuple[dict, bytes]) -> bool:
    """Return whether a receiver with this secret accepts a call."""
    headers, body = call
    try:
        return Webhook(secret).verify(body, headers) == json.loads(body)
    except WebhookVerificationError:
        return False


async def test_a_tenant_cannot_imitate_calls_to_another(plane, root, receiver):
    url, calls = receiver
    first, second = await keyed_tenant(root, "first"), await keyed_tenant(root, "second")
    of_first = (await first.call("GET", "/webhooks/secret"))["secret"]
    of_second = (await second.call("GET", "/webhooks/secret"))["secret"]
    assert len({of_first, of_second, GIVEN}) == 3
    assert len(base64.b64decode(of_first.removeprefix("whsec_"))) == 32
    assert await first.call("GET", "/webhooks/secret") == await first.call("GET", "/webhooks/secret")

    async def called(api: Api, number: int) -> tuple[dict, bytes]:
        async with api.client() as client:
            await client.upload(photo(number), webhook=url)
        await finish_one(plane, photo(number + 10))
        return await asyncio.wait_for(calls.get(), 15.0)

    call = await called(first, 1)
    assert [genuine(secret, call) for secret in (of_first, of_second, GIVEN)] == [True, False, False]
    made = await root.call("POST", "/keys", {"scopes": ["administer"]})
    call = await called(Api(root.http, root.url, made["token"]), 2)
    assert [genuine(secret, call) for secret in (of_first, of_second, GIVEN)] == [False, False, True]

    # During a rotation, receivers may use either secret; afterwards only the new one is valid.
    after = await first.call("POST", "/webhooks/secret/rotate", {"overlap": 60})
    assert after["secret"] != of_first
    assert after["previous_expires"] == pytest.approx(after["created"] + 60, abs=1)
    call = await called(first, 3)
    assert [genuine(secret, call) for secret in (of_first, after["secret"], of_second)] == [True, True, False]
    last = (await first.call("POST", "/webhooks/secret/rotate", {"overlap": 0}))["secret"]
    call = await called(first, 4)
    assert [genuine(secret, call) for secret in (of_first, after["secret"], last)] == [False, False, True]


async def test_only_administrators_see_a_secret_and_it_is_audited(root):
    first = await keyed_tenant(root, "first")
    made = await first.call("POST", "/keys", {"scopes": ["upload", "read", "operate"]})
    user = Api(root.http, root.url, made["token"])
    await user.call("GET", "/webhooks/secret", status=403)
    await user.call("POST", "/webhooks/secret/rotate", {}, status=403)
    secret = (await first.call("GET", "/webhooks/secret"))["secret"]
    await first.call("POST", "/webhooks/secret/rotate", {})
    log = await first.call("GET", "/audit")
    actions = [json.loads(line)["action"] for line in log.splitlines()]
    assert actions[-2:] == ["webhook_secrets.show", "webhook_secrets.rotate"]
    assert secret not in log
    # The secret of the tenant default comes from a setting, so it is changed there.
    assert (await root.call("GET", "/webhooks/secret"))["secret"] == GIVEN
    assert "--webhook-secret" in (await root.call("POST", "/webhooks/secret/rotate", {}, status=409))


async def test_secrets_end_with_their_tenant(root):
    first = await keyed_tenant(root, "first")
    before = (await first.call("GET", "/webhooks/secret"))["secret"]
    await root.call("DELETE", "/tenants/first", status=204)
    again = await keyed_tenant(root, "first")
    assert (await again.call("GET", "/webhooks/secret"))["secret"] != before
