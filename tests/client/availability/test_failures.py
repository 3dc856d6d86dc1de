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
