"""Test attempts to bypass the table of routes and the named networks: other spellings of paths and headers."""

from __future__ import annotations

import asyncio

import pytest

CLASSIC = "203.0.113.9"
SPELLINGS = """
//tasks /./tasks /photos//tasks /photos/./tasks /photos/../tasks /x/../tasks /photos/../photos/tasks /%2e%2e/tasks
/photos/%2e%2e/tasks /photos%2ftasks /photos%2Ftasks /%74asks /photos/%74asks /PHOTOS/tasks /photos/TASKS /tasks;x=y
/photos;/tasks /;/tasks /photos/..;/tasks /tasks/ /photos/tasks/ /tasks%00 /tasks%20 /tasks%0a /tasks? /tasks?link=1
/tasks?link=9999999999.default.a.b /tasks#/healthz /healthz/../tasks /healthz/..%2ftasks /web/../tasks /web/%2e%2e/tasks
/web/..%2f..%2ftasks /session/../tasks /session%2f..%2ftasks /docs/..;/tasks http://localhost/tasks
\\tasks /web\\..\\tasks
/photosx/tasks /photos/photos/tasks /keys /photos/keys /%6beys /tenants/ /metrics /photos/metrics //metrics /audit
"""
FROM_THERE = """
/task/next/../../tasks /task/next/..%2f..%2ftasks /task/%2e%2e/tasks /task/..;/tasks /task/../tasks
/task/next%2f..%2f..%2fkeys
/task/a%2f..%2f..%2ftasks /photos/task/next/../../tasks /photos/task/%2e%2e/%2e%2e/keys /task/next;/../../keys
/task/a/download/../original /task/a/original /task/a%2foriginal /tasks /photos/tasks /keys /metrics
"""
SPOOFED = (
    [("X-Forwarded-For", CLASSIC), ("X-Forwarded-For", "198.51.100.7")],
    [("X-Forwarded-For", f"{CLASSIC},"), ("X-Forwarded-For", "")],
    [("X-Forwarded-For", f"{CLASSIC}, unknown")],
    [("X-Forwarded-For", f"{CLASSIC} 198.51.100.7")],
    [("X-Forwarded-For", f'"{CLASSIC}"')],
    [("X-Forwarded-For", "203.0.113.009")],
    [("X-Forwarded-For", "::ffff:198.51.100.7")],
    [("Forwarded", f"for={CLASSIC}")],
    *([(name, CLASSIC)] for name in ("X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Client-IP")),
    *([(name, CLASSIC)] for name in ("X_Forwarded_For", "X-Forwarded_For", "X-Forwarded-For-", "X-Forwarded-Host")),
)
USERS = (
    [("Remote_User", "root")], [("REMOTE_USER", "root")], [("Remote.User", "root")], [("X-Remote-User", "root")],
    [("Remote-User", "")], [("Remote-User", "ann"), ("Remote-User", "root")],
    [("remote-user", "a"), ("Remote-User", "a")], [("Remote-User", "a\x85b")],
)  # fmt: skip


async def status(url: str, target: str, *headers: tuple[str, str]) -> int:
    """Request a path exactly as it is written; return the status of the answer."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers)]
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
            return int((await reader.readline()).split()[1])
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def master(plane) -> str:
    """Run a master under a path prefix behind a proxy on this machine."""
    settings = {"public_url": "http://localhost/photos", "user_header": "Remote-User", "user_scopes": "administer"}
    await plane.start_all(
        master=settings, trusted_proxies="127.0.0.1", classic_networks="203.0.113.0/24", classic_tenant="default"
    )
    return plane.url("master")


async def test_no_spelling_of_a_path_bypasses_its_access_rule(master):
    for target in SPELLINGS.split():
        got = await status(master, target)
        assert got in (400, 401, 404, 421), (target, got)


async def test_a_classic_network_reaches_no_other_route(master):
    there = ("X-Forwarded-For", CLASSIC)
    assert await status(master, "/task/next", there) == 404, "the request is accepted, and no task waits"
    for target in FROM_THERE.split():
        got = await status(master, target, there)
        assert got in (400, 403, 404), (target, got)


async def test_a_network_is_not_spoofed(master):
    for headers in SPOOFED:
        got = await status(master, "/task/next", *headers)
        assert got in (400, 401), (headers, got)


async def test_a_user_is_not_spoofed(master):
    assert await status(master, "/tasks", ("Remote-User", "ann")) == 200
    for headers in USERS:
        got = await status(master, "/tasks", *headers)
        assert got in (400, 401), (headers, got)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://localhost/healthz", 200), ("http://u:p@127.0.0.1:99/healthz", 200), ("http://[::1]:8/healthz", 200),
        ("http://evil.example/healthz", 421), ("http://localhost:x@evil.example/healthz", 421),
        ("http://[2001:db8::1]/healthz", 421), ("//evil.example/healthz", 404),
    ],
)  # fmt: skip
async def test_the_host_of_an_address_in_the_request_line_counts(plane, target, expected):
    """`Host` is right, but a server must ignore it then (RFC 9112, 3.2.2)."""
    service = await plane.start("keyvaluestore")
    assert await status(service.url, target) == expected
