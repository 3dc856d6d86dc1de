"""Test that the command goes through the proxy that the environment names, as curl and pip do."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from safelight.cli.connection import Where, master
from safelight.cli.proxies import proxy_of
from safelight.client.master import Client
from safelight.errors import Code
from support.tasks import refused

ANSWER = b"HTTP/1.1 200 OK\r\nServer: safelight-master\r\nContent-Length: 2\r\n\r\n[]"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("SAFELIGHT_API_KEY", "key")
    return monkeypatch


@asynccontextmanager
async def proxy(answer=ANSWER):
    """Answer every request in the place of a master, as a proxy; yield HOST:PORT and the heads of the requests."""
    heads = []

    async def reply(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def recipes(address):
    async with master(Where(master=address), retry_for=0.0) as client:
        return await client.recipes()


async def test_the_command_asks_the_proxy_but_never_for_this_machine(environment):
    async with proxy() as (address, heads):
        environment.setenv("HTTP_PROXY", f"http://ann:p%40ss@{address}")
        assert await recipes("http://photos.example:8003") == []
        assert heads[0].startswith("GET http://photos.example:8003/recipes HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic YW5uOnBAc3M=\r\n" in heads[0]  # base64 of ann:p@ss
        assert await recipes(address) == []
        assert heads[1].startswith("GET /recipes HTTP/1.1\r\n")
        assert "Proxy-Authorization" not in heads[1]


async def test_https_goes_through_a_tunnel_and_a_refusal_is_told(environment):
    async with proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as (address, heads):
        environment.setenv("https_proxy", f"ann:p%40ss@{address}")
        error = await refused(Code.UNAVAILABLE, recipes("https://photos.example"))
    assert heads[0].startswith("CONNECT photos.example:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic YW5uOnBAc3M=\r\n" in heads[0]
    assert "Bearer" not in "".join(heads), "the key is for the master alone"
    assert error.detail.startswith("No answer from https://photos.example: the proxy answered 407. HTTP_PROXY and ")
    error = await refused(Code.UNAVAILABLE, recipes("https://photos.example"))
    assert f"the proxy {address} cannot be reached: connection refused." in error.detail
    environment.setenv("https_proxy", "socks5://127.0.0.1:1080")
    error = await refused(Code.INVALID_REQUEST, recipes("https://photos.example"))
    assert "is no http://HOST:PORT" in error.detail


async def test_services_use_no_proxy(environment):
    async with proxy() as (address, heads):
        environment.setenv("HTTP_PROXY", f"http://{address}")
        async with Client.connect("http://photos.invalid") as client:
            client._connection.retry_for = 0.0
            await refused(Code.UNAVAILABLE, client.recipes())
    assert not heads


@pytest.mark.parametrize(
    "left_out",
    ["*", "photos.example", ".example", "a.example, photos.example", "photos.example:8003", "PHOTOS.example"],
)
def test_no_proxy_leaves_out_names(environment, left_out):
    environment.setenv("ALL_PROXY", "http://proxy:3128")
    url = URL("http://photos.example:8003/tasks")
    assert proxy_of(url) == URL("http://proxy:3128")
    environment.setenv("NO_PROXY", left_out)
    assert proxy_of(url) is None
    assert proxy_of(URL("http://otherphotos.test:8003")) == (None if left_out == "*" else URL("http://proxy:3128"))


@pytest.mark.parametrize("left_out", ["10.1.2.3", "10.0.0.0/8", "x, 10.1.0.0/16", "10.1.2.3:8003"])
def test_no_proxy_leaves_out_addresses(environment, left_out):
    environment.setenv("HTTPS_PROXY", "proxy:3128")
    environment.setenv("NO_PROXY", left_out)
    assert proxy_of(URL("https://10.1.2.3:8003")) is None
    assert proxy_of(URL("https://11.1.2.3:8003")) == URL("http://proxy:3128")
    assert proxy_of(URL("http://11.1.2.3:8003")) is None, "HTTPS_PROXY is not for http://"
    for host in ("localhost", "photos.localhost", "127.0.0.2", "[::1]"):
        assert proxy_of(URL(f"https://{host}")) is None
