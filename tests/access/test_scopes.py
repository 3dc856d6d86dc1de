"""Test the rights of each scope at every route of every service, by a table in this file."""

from __future__ import annotations

import asyncio
import re

import pytest

from safelight.access.caller import EVERYBODY

from .tenants import Api, keyed_tenant

pytestmark = pytest.mark.slow

SCOPES = ("upload", "read", "operate", "administer")
READ = """
GET /tasks, GET /tasks/counts, GET /task/{id}, GET /task/{id}/recipe, GET /task/{id}/events, GET /task/{id}/download,
GET /task/{id}/ready, GET /task/{id}/result, GET /task/{id}/original, GET /task/{id}/rendition, GET /batches,
GET /batches/{name}, GET /archive, POST /archive, GET /events, GET /last-hour, GET /statistics, GET /summary,
GET /webhooks/calls, POST /task/{id}/links
"""
UPLOAD = """
POST /task, POST /tasks, POST /preview, POST /uploads, POST /uploads/, HEAD /uploads/{id}, PATCH /uploads/{id},
DELETE /uploads/{id}, POST /uploads/{id}
"""
BOTH = "GET /recipes, GET /recipes/schema, GET /recipes/{name}, POST /recipes/check"
OPERATE = """
DELETE /recipes/{name}, PUT /recipes/{name}, DELETE /task/{id}, POST /task/{id}/cancel, POST /task/{id}/release,
POST /task/{id}/retry, POST /tasks/actions, POST /queue/pause, POST /queue/resume, POST /recipes/{name}/pause,
POST /recipes/{name}/resume, POST /webhooks/calls/{id}/resend
"""
ADMINISTER = """
GET /audit, GET /keys, POST /keys, GET /tenants, GET /webhooks/secret, POST /webhooks/secret/rotate, POST /links/rotate
"""
EACH = "POST /keys/{id}/rotate, DELETE /keys/{id}"
"""Routes that act on the caller's own key."""
SYSTEM = """
GET /storage, POST /storage/accept, GET /services, POST /clock/confirm, POST /tenants, PUT /tenants/{id},
DELETE /tenants/{id}, POST /workers/{id}/drain, POST /workers/{id}/resume
"""
"""Routes only for the tenant `default`: what they show and change belongs to all tenants."""
SERVICES = """
POST /lease, POST /heartbeat, POST /outcomes, POST /sign-in-links, GET /task/next, POST /task/{id}/finish, GET /metrics,
POST /shutdown
"""


def routes(text: str) -> set[str]:
    return {one.strip() for one in text.split(",")}


def allowed(scope: str) -> set[str]:
    """Return the rights of a scope for a key of a tenant other than `default`; an administrator has all scopes."""
    held = routes(EACH)
    for name, texts in {"read": (READ, BOTH), "upload": (UPLOAD, BOTH), "operate": (OPERATE,)}.items():
        if scope in (name, "administer"):
            held |= set().union(*map(routes, texts))
    return held | (routes(ADMINISTER) if scope == "administer" else set())


async def ask(api: Api, method: str, url: str) -> int:
    """Return the status of the answer, or 0 if the request was accepted and waits for an event."""
    headers = {**api.headers, "Tus-Resumable": "1.0.0"}
    try:
        async with asyncio.timeout(5), api.http.request(method, url, headers=headers) as answer:
            return answer.status
    except TimeoutError:
        return 0


async def test_a_key_does_what_its_scopes_say_and_nothing_else(keyed, http):
    root = Api(http, keyed.url("master"), keyed.key)
    await root.call("POST", "/tenants", {"id": "acme"})
    apis = {}
    for scope in SCOPES:
        sent = {"name": scope, "scopes": [scope]}
        made = await root.call("POST", "/keys", sent, headers={"Safelight-Tenant": "acme"})
        apis[scope] = Api(http, root.url, made["token"])
    known = set().union(*map(routes, (READ, UPLOAD, BOTH, OPERATE, ADMINISTER, EACH, SYSTEM, SERVICES)))
    for name, service in keyed.services.items():
        for mounted, route in service.routes.items():
            if route.access & EVERYBODY:
                continue
            asked = f"{mounted.method} {route.path}"
            if mounted.method == "HEAD" and asked not in known:
                asked = f"GET {route.path}"
            url = service.url + re.sub(r"\{\w+\}", "some-1", route.path)
            for scope, api in apis.items():
                status = await ask(api, mounted.method, url)
                if name != "master":
                    assert status == 401, (name, asked, scope, status)
                    continue
                assert asked in known, f"add the scopes that may {asked} to the table"
                may = asked in allowed(scope)
                assert (status not in (401, 403)) is may, (asked, scope, status)


async def test_only_the_default_tenant_administers_the_system(keyed, http):
    root = Api(http, keyed.url("master"), keyed.key)
    acme = await keyed_tenant(root, "acme")
    made = await root.call("POST", "/keys", {"scopes": ["administer"]})
    ours = Api(http, root.url, made["token"])
    for method, path in (("POST", "/clock/confirm"), ("GET", "/services")):
        await acme.call(method, path, status=403)
        await ours.call(method, path)


async def test_a_refusal_names_only_scopes(keyed, http):
    """`classic` and `link` are ways in that no key can be given."""
    root = Api(http, keyed.url("master"), keyed.key)
    reader = await keyed_tenant(root, "acme", ["read"])
    uploader = Api(http, root.url, (await root.call("POST", "/keys", {"name": "up", "scopes": ["upload"]}))["token"])
    for api, method, path, scope in (
        (reader, "POST", "/task", "upload"),
        (uploader, "GET", "/task/1-abcdefghij/result", "read"),
    ):
        told = await api.call(method, path, status=403)
        assert f"it needs the scope {scope}. Ask an administrator" in str(told)
