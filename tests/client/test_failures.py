"""Test what people read when a server gives no answer that can be read."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from safelight.client.master import Client
from safelight.errors import Code, Error

OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def answering(answer):
    """Give these bytes as the answer to every request; yield the server's URL."""

    async def reply(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "its answer is not valid HTTP (bad status line)"),
        (OK + b"Content-Length: abc\r\n\r\n", "its answer is not valid HTTP (invalid character in content-length)"),
        (OK + b"Content-Length: 10\r\n\r\n[]", "the connection was closed in the middle of the answer"),
        (b"", "the connection was closed"),
    ],
)
async def test_an_answer_that_is_none_is_told_in_one_line(answer, reason):
    async with answering(answer) as url, Client.connect(url) as client:
        client._connection.retry_for = 0.0
        with pytest.raises(Error) as refused:
            await client.recipes()
    assert refused.value.code is Code.UNAVAILABLE
    assert refused.value.detail == f"No answer from {url}: {reason}. Is the service running?"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (
            b"200 OK",
            Code.INTERNAL,
            "The answer to GET /recipes is a web page. Give an address that leads to the service",
        ),
        (b"502 Bad Gateway", Code.UNAVAILABLE, "The service, or a proxy in front of it, answered 502 Bad Gateway."),
        (b"404 Not Found", Code.NOT_FOUND, "The service, or a proxy in front of it, answered 404 Not Found."),
    ],
)
async def test_the_web_page_of_a_proxy_is_not_quoted(status, code, told):
    """nginx answers a photo that is larger than its limit with a page, and so do proxies whose service is away."""
    page = b"\r\n<html>\r\n<head><title>nginx</title></head>\r\n</html>\r\n"
    head = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % (status, len(page))
    async with answering(head + page) as url, Client.connect(url) as client:
        client._connection.retry_for = 0.0
        with pytest.raises(Error) as refused:
            await client.recipes()
    assert refused.value.code is code
    assert refused.value.detail.startswith(told)
