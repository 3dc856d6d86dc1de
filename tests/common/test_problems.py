"""Test errors: the fixed set of codes, problem documents in both directions, and how clients read answers."""

from __future__ import annotations

import asyncio
import http
import re

import aiohttp
import pytest
from aiohttp import web

from safelight import serve
from safelight.access import route
from safelight.access.caller import Access
from safelight.client.availability.instances import Several
from safelight.client.base import Connection, ServiceClient, session
from safelight.errors import STATUS, TITLE, Code, Error
from safelight.wire import Blob, decode, encode


@pytest.mark.parametrize("code", list(Code))
def test_every_code_goes_over_the_wire_and_back(code):
    error = Error(code, "A sentence.", position="$.a", limit=5)
    document = error.problem()
    assert document["status"] == STATUS[code] == error.status
    assert http.HTTPStatus(error.status)
    assert document["title"] == TITLE[code]
    again = Error.from_problem(document, error.status)
    assert (again.code, again.detail, again.extra) == (code, "A sentence.", {"position": "$.a", "limit": 5})


def test_an_error_can_quote_bytes_that_are_not_text():
    header = b"caf\xe9 \xc3\xa9".decode(errors="surrogateescape")  # as aiohttp reads it
    document = encode(Error(Code.INVALID_REQUEST, f"There is no {header}.", position=header).problem())
    error = Error.from_problem(decode(document, dict), 400)
    assert (error.detail, error.extra) == (r"There is no caf\udce9 é.", {"position": r"caf\udce9 é"})


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        (None, 404, Code.NOT_FOUND),
        ({"detail": "no"}, 418, Code.INVALID_REQUEST),
        ({"code": "from_the_future", "detail": "no"}, 503, Code.UNAVAILABLE),
        ("<html>", 502, Code.UNAVAILABLE),
        ([], 599, Code.UNAVAILABLE),
    ],
)
def test_an_answer_without_a_problem_document_still_has_a_code(document, status, code):
    error = Error.from_problem(document, status)
    assert error.code is code
    assert error.detail


@pytest.mark.parametrize(
    ("text", "position"),
    [(b'{"digest": "x", "size": 1}', "$.digest"), (b'{"size": 1}', "$.digest"), (b"{", None), (b"\xff", None)],
)
def test_a_value_that_does_not_fit_a_record_is_reported_with_its_place(text, position):
    with pytest.raises(Error) as caught:
        decode(text, Blob)
    assert caught.value.code is Code.INVALID_REQUEST
    assert caught.value.extra.get("position") == position


def app_of(**handlers) -> web.Application:
    app = web.Application()
    for name, handler in handlers.items():
        route.add(app, route.get(f"/{name}", handler, Access.READ))
    return app


def serving(app: web.Application, **settings):
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def build(_config, service):
        service.on_stop(lambda: None)
        yield app

    return serve.running("test", serve.Config(**settings), build)


async def test_every_failure_of_a_request_is_a_problem_document():
    async def known(_request):
        raise Error(Code.TOO_MANY_REQUESTS, "Wait a little.", retry_after=7)

    async def bug(_request):
        raise RuntimeError("a bug")

    async with serving(app_of(known=known, bug=bug)) as service, session() as client:
        cases = [
            ("GET", "/known", 429, "too_many_requests", "Wait a little."),
            ("GET", "/bug", 500, "internal", "Its log says more"),
            ("GET", "/nothing", 404, "not_found", "There is nothing at /nothing."),
            ("DELETE", "/known", 405, "method_not_allowed", "/known allows GET, HEAD, not DELETE."),
            ("POST", "/shutdown", 403, "forbidden", "it needs shutdown"),
        ]
        for method, path, status, code, sentence in cases:
            async with client.request(method, service.url + path) as answer:
                assert (answer.status, answer.content_type) == (status, "application/problem+json")
                document = await answer.json()
                assert document["code"] == code
                assert sentence in document["detail"]
                if code == "too_many_requests":
                    assert answer.headers["Retry-After"] == "7"


async def test_a_request_that_is_not_authenticated_gets_a_problem_and_health_needs_no_key():
    async def refuse(_request):
        raise Error(Code.UNAUTHENTICATED, "Send a key.")

    async def never(_request):
        raise AssertionError

    async with serving(app_of(secret=never)) as service, session() as client:
        service.gate.authenticators.append(refuse)
        async with client.get(f"{service.url}/secret") as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, "unauthenticated")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        for path in ("/healthz", "/readyz"):
            async with client.get(service.url + path) as answer:
                assert answer.status == 200


async def test_readiness_names_what_is_missing():
    async def away():
        raise Error(Code.UNAVAILABLE, "db is away")

    async with serving(app_of()) as service, session() as client:
        service.checks["db"] = away
        async with client.get(f"{service.url}/readyz") as answer:
            assert answer.status == 503
            document = await answer.json()
            assert document["waiting_for"] == ["db"]
            assert "db: db is away" in document["detail"]
        async with client.get(f"{service.url}/healthz") as answer:
            assert answer.status == 200


async def test_readiness_is_answered_before_a_probe_gives_up(monkeypatch):
    async def silent():
        await asyncio.Event().wait()

    monkeypatch.setattr("safelight.http._CHECK", 0.01)
    async with serving(app_of()) as service, session() as client, asyncio.timeout(30.0):
        service.checks["etcd"] = silent
        async with client.get(f"{service.url}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["waiting_for"] == ["etcd"]


async def test_clients_raise_what_the_service_raised():
    async def conflict(_request):
        raise Error(Code.CONFLICT, "It is there already.", name="x")

    async def odd(_request):
        return web.Response(text="not json")

    async with serving(app_of(conflict=conflict, odd=odd)) as service, session() as client:
        connection = Connection(client, Several(service.url))
        with pytest.raises(Error) as caught:
            await connection.call("GET", "/conflict", bytes)
        assert (caught.value.code, caught.value.extra["name"]) == (Code.CONFLICT, "x")
        with pytest.raises(Error, match="could not be decoded"):
            await connection.call("GET", "/odd", Blob)


async def test_clients_retry_transient_failures():
    attempts = 0

    async def flaky(_request):
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            return web.Response(status=503, text="not yet")
        return web.json_response(attempts)

    async with serving(app_of(flaky=flaky)) as service, session() as client:
        assert await Connection(client, Several(service.url)).call("GET", "/flaky", int) == 3
        attempts = 0
        with pytest.raises(Error, match="not yet"):
            await Connection(client, Several(service.url)).call("GET", "/flaky", int, retry=False)
        assert attempts == 1


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "connection refused"),
        ("localhost:1", "connection refused"),
        ("no-such-host.invalid:80", "name or service not known|temporary failure in name resolution"),
        ("http://127.0.0.1:port", "this is not a URL"),
        ("http://", "this is not a URL"),
    ],
)
async def test_if_nothing_answers_the_message_names_the_address_and_the_reason(address, reason):
    async with session() as client:
        with pytest.raises(Error, match="Is the service running") as caught:
            await Connection(client, Several(address), retry_for=0.0).call("GET", "/", bytes)
    assert caught.value.code is Code.UNAVAILABLE
    assert address.rstrip("/") in caught.value.detail
    assert re.search(reason, caught.value.detail)
    assert "[" not in caught.value.detail, "the library's own wording must not be shown"


async def test_credentials_are_added_to_every_request():
    async def echo(request):
        return web.json_response(request.headers.get("Authorization"))

    def credentials(method: str, path: str) -> dict[str, str]:
        return {"Authorization": f"{method} {path}"}

    async with serving(app_of(echo=echo)) as service, session() as client:
        connection = Connection(client, Several(service.url), credentials=credentials)
        assert await connection.call("GET", "/echo", str) == "GET /echo"


async def test_health_by_a_client():
    async with serving(app_of()) as service, ServiceClient.connect(service.url) as client:
        assert await client.health()
    async with ServiceClient.connect("127.0.0.1:1") as client:
        client._connection.retry_for = 0.0
        assert not await client.health()


async def test_a_long_body_that_breaks_off_in_the_answer_is_an_error_to_the_client():
    async def broken(request):
        response = web.StreamResponse()
        response.content_length = 100
        await response.prepare(request)
        await response.write(b"half")
        request.transport.abort()
        raise ConnectionResetError

    async with serving(app_of(broken=broken)) as service, session() as client:
        with pytest.raises(Error, match="No answer"):
            await Connection(client, Several(service.url)).call("GET", "/broken", bytes, retry=False)
        async with client.get(f"{service.url}/healthz") as answer:
            assert answer.status == 200
        assert isinstance(client, aiohttp.ClientSession)
