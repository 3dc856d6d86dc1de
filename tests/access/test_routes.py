"""Test that every route of every service requires the credential that its table names."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import web

from safelight.access import route
from safelight.access.caller import EVERYBODY, Access
from safelight.access.malformed import HARDENED
from safelight.errors import Code, Error

PUBLIC = {
    *(
        ("GET", path)
        for path in ("/healthz", "/readyz", "/", "/docs", "/docs/docs.js", "/docs/docs.css", "/openapi.json")
    ),
    ("GET", "/service-worker.js"),
    ("GET", "/session"),
    ("POST", "/session"),
    ("DELETE", "/session"),
    ("OPTIONS", "/uploads"),
    ("OPTIONS", "/uploads/"),
    ("OPTIONS", "/uploads/{id}"),
}
"""Routes that need no key, because they contain no private data. The page's files are below /web/."""


def requests(plane):
    """Yield each service's name with each of its routes: method, a path that fits, the access."""
    for name, service in plane.services.items():
        for mounted, known in service.routes.items():
            path = re.sub(r"\{\w+\}", "some-1", known.path)
            yield name, mounted.method, known.path, service.url + path, known.access


async def test_without_a_key_only_public_routes_answer(keyed, http):
    await keyed.start("worker", trusted_proxies="192.0.2.1", slots=1, isolation="thread")
    assert {"keyvaluestore", "db", "storage", "master", "worker"} == keyed.services.keys()
    walked = 0
    for name, method, path, url, access in requests(keyed):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            async with http.request(method, url, headers=headers) as answer:
                got = answer.status
                assert HARDENED.keys() <= {*answer.headers}, (name, method, path)
                policy = answer.headers["Content-Security-Policy"]
                assert "frame-ancestors 'none'" in policy and answer.headers["X-Content-Type-Options"] == "nosniff"
            if access & EVERYBODY:
                shown = ("GET" if method == "HEAD" else method, path)
                assert shown in PUBLIC or path.startswith("/web/"), (name, method, path)
                assert got != 401, (name, method, path, got)
            else:
                assert got == 401, (name, method, path, got)
        walked += 1
    assert walked > 100


@pytest.mark.slow
async def test_the_cluster_key_opens_every_route(keyed, http):
    await keyed.start("worker", trusted_proxies="192.0.2.1", slots=1, isolation="thread")
    for name, method, path, url, _ in requests(keyed):
        if path == "/shutdown":
            continue
        headers = {**keyed.credentials, "Accept": "application/json"}
        try:
            async with asyncio.timeout(2), http.request(method, url, headers=headers) as answer:
                assert answer.status not in (401, 403, 421), (name, method, path, answer.status)
        except TimeoutError:
            pass  # the request was accepted and waits for an event


async def test_strangers_learn_what_a_service_waits_for_but_no_address(keyed, http):
    async def away():
        raise Error(Code.UNAVAILABLE, "10.9.8.7:5432 does not answer.")

    db = keyed.services["db"]
    db.checks["postgresql"] = away
    for headers, told in (({}, False), ({"Authorization": "Bearer wrong"}, False), (keyed.credentials, True)):
        async with http.get(f"{db.url}/readyz", headers=headers) as answer:
            assert answer.status == 503
            document = await answer.json()
        assert document["waiting_for"] == ["postgresql"]
        assert ("10.9.8.7" in document["detail"]) == told


async def test_a_classic_network_can_use_only_the_classic_protocol(plane, http):
    await plane.start_all(trusted_proxies="192.0.2.1", classic_networks="127.0.0.0/8,10.0.0.0/8")
    spoken = set()
    for name, method, path, url, access in requests(plane):
        async with http.request(method, url) as answer:
            got = answer.status
        if access & Access.CLASSIC:
            assert got not in (401, 403), (name, method, path, got)
            spoken.add((name, method, path))
        elif not access & EVERYBODY:
            assert got == 403, (name, method, path, got)
    assert spoken >= {
        ("keyvaluestore", "GET", "/{key}"), ("keyvaluestore", "POST", "/{key}"), ("keyvaluestore", "GET", "/{key}/"),
        ("db", "POST", "/task"), ("db", "POST", "/task/{id}/ready"), ("db", "GET", "/task/next"),
        ("db", "POST", "/task/{id}/finish"), ("db", "GET", "/task/{id}"),
        ("storage", "POST", "/upload/{name}"), ("storage", "GET", "/download/{name}"),
        ("master", "POST", "/task"), ("master", "GET", "/task/next"), ("master", "GET", "/task/{id}/download"),
        ("master", "POST", "/task/{id}/finish"), ("master", "GET", "/task/{id}/ready"),
    }  # fmt: skip


async def _nothing(_request: web.Request) -> web.Response:
    return web.Response()


def test_an_application_with_a_route_that_names_no_access_is_refused():
    app = web.Application()
    app.router.add_get("/forgotten", _nothing)
    with pytest.raises(ValueError, match="HEAD /forgotten names no access"):
        route.mount(app)
    app = web.Application()
    route.add(app, route.get("/empty", _nothing, Access(0)))
    with pytest.raises(ValueError, match="/empty names no access"):
        route.mount(app)
