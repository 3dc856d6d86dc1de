"""Test which host names and which pages a service accepts: on this machine, on a network, and behind a proxy."""

from __future__ import annotations

import re
import socket

import pytest
from aiohttp.test_utils import make_mocked_request

from access.conftest import ELSEWHERE
from safelight.access.forwarded import client_address
from safelight.access.networks import Networks
from safelight.access.policy import Policy, PolicyError
from safelight.access.settings import AccessSettings

HERE = "http://localhost"
FOREIGN = "http://evil.example"
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


async def status(http, url: str, method: str = "GET", **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url, headers=sent, allow_redirects=False) as answer:
        return int(answer.status)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200), ("LocalHost:8000", 200), ("127.0.0.1:1", 200), ("[::1]:8003", 200),
        ("master.localhost", 200),
        ("127.8.8.8", 200), ("evil.example", 421), ("evil.example:8000", 421), ("localhost.evil.example", 421),
        ("10.0.0.7", 421), ("[2001:db8::1]", 421), ("127.0.0.1.evil.example", 421), ("", 421), ("localhost@evil", 421),
    ],
)  # fmt: skip
async def test_names_on_this_machine(plane, http, host, expected):
    service = await plane.start("keyvaluestore")
    for path in ("/", "/healthz", "/nothing/at/all"):
        found = await status(http, service.url + path, Host=host)
        assert found == (404 if expected == 200 and path.startswith("/nothing") else expected), path


async def test_names_beyond_this_machine(plane, http):
    service = await plane.start("keyvaluestore", host="0.0.0.0", allowed_hosts="store.example, nas")
    url = f"http://127.0.0.1:{service.port}/healthz"
    for host in ("store.example", "NAS:8000", "10.0.0.7:8000", "[2001:db8::1]:80", "localhost"):
        assert await status(http, url, Host=host) == 200, host
    for host in ("evil.example", "store.example.evil.example", "nas.", "10.0.0.7.evil.example"):
        assert await status(http, url, Host=host) == (200 if host == "nas." else 421), host


@pytest.mark.parametrize("written", ["münchen.example", "xn--mnchen-3ya.example"])
async def test_a_name_with_other_letters_is_known_as_browsers_send_it(plane, http, written):
    settings = {"public_url": f"https://{written}/photos", "allowed_hosts": f"nas.lan, Foto.{written}."}
    await plane.start_all(master=settings)
    for host in ("xn--mnchen-3ya.example", "foto.xn--mnchen-3ya.example:8003", "nas.lan"):
        assert await status(http, f"{plane.url('master')}/healthz", Host=host) == 200, host


@pytest.mark.parametrize("wrong", ["nas.lan:8003", "https://nas.lan", "nas.lan/photos", "*.lan", "nas lan"])
def test_a_name_that_no_request_could_have_is_refused(wrong):
    with pytest.raises(PolicyError, match=re.escape(f"--allowed-hosts: {wrong} is not the name of a host.")):
        Policy.of(AccessSettings(allowed_hosts=f"store.example,{wrong}"), host="127.0.0.1")


@pytest.mark.parametrize("path", ["/my%20photos", "/фото", "/a{b}", "//x", "/a;b"])
def test_a_path_that_headers_and_routes_would_write_differently_is_refused(path):
    with pytest.raises(PolicyError, match="--public-url: the path of"):
        Policy.of(AccessSettings(), host="127.0.0.1", public_url=f"https://example.org{path}")
    for usual in ("", "/", "/photos", "/our/photos_2~v1.0/"):
        Policy.of(AccessSettings(), host="127.0.0.1", public_url=f"https://example.org{usual}")


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", 421), ("0.0.0.0", 200)])
async def test_the_name_of_the_machine_counts_beyond_it(plane, http, host, expected):
    service = await plane.start("keyvaluestore", host=host)
    url, name = f"http://127.0.0.1:{service.port}/healthz", socket.gethostname()
    assert await status(http, url, Host=f"{name}:8000") == expected
    assert await status(http, url, Host=f"{name}.evil.example") == 421


async def test_pages_of_other_sites_neither_read_nor_write(plane, http):
    service = await plane.start("keyvaluestore")
    key = f"{service.url}/storageendpoint"
    own = f"http://localhost:{service.port}"
    refused = [
        {"Origin": FOREIGN}, {"Origin": "null"}, {"Origin": f"{own}1"}, {"Origin": "http://localhost"}, {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "anything"},
        {"Origin": own, "Sec-Fetch-Site": "same-site"}, LINK,
        {"Origin": FOREIGN, "Upgrade": "websocket", "Connection": "Upgrade"},
    ]  # fmt: skip
    for headers in refused:
        sent = {"Host": f"localhost:{service.port}", **headers}
        assert await status(http, service.url + "/", **sent) == 403, headers
        async with http.post(key, data={"value": "evil:1"}, headers=sent) as answer:
            assert answer.status == 403, headers
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert await status(http, key, "OPTIONS", **sent, Access_Control_Request_Method="PUT") == 403
    assert await status(http, key) == 404
    allowed = [
        {}, {"Origin": own}, {"Sec-Fetch-Site": "same-origin", "Origin": own}, {"Sec-Fetch-Site": "none"},
    ]  # fmt: skip
    for headers in allowed:
        sent = {"Host": f"localhost:{service.port}", **headers}
        assert await status(http, service.url + "/", **sent) == 200, headers


async def test_a_link_on_another_site_leads_to_the_page_and_no_further(plane, http):
    await plane.start_all()
    master = plane.url("master")
    assert await status(http, f"{master}/", **LINK) == 200
    assert await status(http, f"{master}/docs", **LINK) == 200
    assert await status(http, f"{master}/task/none/result", **LINK) == 404
    for path in ("/tasks", "/task/next", "/healthz", "/events"):
        assert await status(http, master + path, **LINK) == 403, path
    assert await status(http, f"{master}/", **{**LINK, "Sec-Fetch-Dest": "iframe"}) == 403
    assert await status(http, f"{master}/", "POST", **LINK) == 403
    assert await status(http, f"{master}/", Origin=FOREIGN, **LINK) == 403


async def test_a_named_origin_can_call_the_api_and_read_its_answers(plane, http):
    await plane.start_all()
    named = "https://app.example"
    master = (await plane.start("master", cors_origins=f"{named}, https://other.example:8443")).url
    asking = {
        "Origin": named,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "upload-offset",
    }
    for path in ("/task", "/uploads/some", "/tasks"):
        async with http.options(master + path, headers=asking) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == named
            assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
            for name in (
                "Authorization", "Upload-Offset", "Tus-Resumable", "Upload-Metadata", "Upload-Checksum",
                "Upload-Concat", "Upload-Defer-Length", "Safelight-Tenant", "traceparent", "tracestate",
            ):  # fmt: skip
                assert name in answer.headers["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Credentials" not in answer.headers
    crossing = {"Origin": named, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    # On this machine programs need no key, but a page is none of them.
    keyed = crossing | plane.credentials
    for path, sent, expected in (("/tasks", keyed, 200), ("/task/none", keyed, 404), ("/tasks", crossing, 401)):
        async with http.get(master + path, headers=sent) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (expected, named)
            assert "Location" in answer.headers["Access-Control-Expose-Headers"]
            assert "Upload-Offset" in answer.headers["Access-Control-Expose-Headers"]
            assert "Origin" in answer.headers["Vary"]
    for origin in ("https://app.example.evil", "http://app.example", "https://other.example"):
        async with http.get(f"{master}/tasks", headers={"Origin": origin}) as answer:
            assert (answer.status, answer.headers.get("Access-Control-Allow-Origin")) == (403, None)
    async with http.get(f"{master}/tasks") as answer:
        assert answer.status == 200


async def test_a_page_of_a_named_origin_may_do_nothing_without_a_key(plane, http):
    """Not even where programs need none: on this machine, and in the networks of the classic protocol."""
    await plane.start_all()
    crossing = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    for more in ({}, {"classic_networks": "127.0.0.0/8", "trusted_proxies": ELSEWHERE}):
        master = (await plane.start("master", cors_origins="https://app.example", **more)).url
        for path, method in (
            ("/task/next", "GET"), ("/tasks", "GET"), ("/queue/pause", "POST"), ("/keys", "GET"),
            ("/sign-in-links", "POST"),
        ):  # fmt: skip
            assert await status(http, master + path, method, **crossing) == 401, (path, more)
        assert await status(http, f"{master}/task/next") == 404
    opened = (await plane.start("master", cors_origins="https://app.example", open=True)).url
    assert await status(http, f"{opened}/tasks", **crossing) == 200


async def test_no_answer_can_be_sniffed_framed_or_embedded(plane, http):
    await plane.start_all()
    for name, path in [
        ("master", "/tasks"), ("master", "/task/none/original"), ("master", "/docs"), ("master", "/openapi.json"),
        ("master", "/nothing"), ("db", "/summary"), ("storage", "/info"), ("keyvaluestore", "/"), ("master", "/"),
        ("keyvaluestore", "/dbendpoint"),
    ]:  # fmt: skip
        async with http.get(plane.url(name) + path) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", path
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], path
            # The page of the master has a form, whose requests must say where they come from.
            assert answer.headers["Referrer-Policy"] == (
                "same-origin" if path == "/" and name == "master" else "no-referrer"
            ), path


@pytest.mark.parametrize(
    ("peer", "chain", "expected"),
    [
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),  # not a trusted proxy, so the header is ignored
        ("10.0.0.1", None, "10.0.0.1"), ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"), ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "nonsense", "10.0.0.1"), ("10.0.0.1", "203.0.113.9, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"), ("10.0.0.1", "203.0.113.9:5000", "203.0.113.9"),
    ],
)  # fmt: skip
def test_only_trusted_proxies_tell_a_clients_address(peer, chain, expected):
    headers = {"X-Forwarded-For": chain} if chain else {}
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=peer)
    assert client_address(request, Networks.parse("10.0.0.0/24")) == expected
