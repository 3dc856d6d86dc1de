"""Test that malformed HTTP requests get a problem document that repeats nothing of the request."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import http_exceptions, web

from safelight.access import malformed
from safelight.errors import Code

LONG = b"x" * 20_000
HOSTILE = b"<script>\x01"
MALFORMED = {
    "no HTTP": HOSTILE + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that is none": b"GET / HTTP/" + HOSTILE + b"\r\n\r\n",
    "an address that is none": b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a control character": b"GET /\x01" + HOSTILE + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + HOSTILE + b"\r\n\r\n",
    "a header that is too long": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + HOSTILE + LONG + b"\r\n\r\n",
    "an address that is too long": b"GET /" + LONG + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + HOSTILE + b"\r\n\r\n",
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
}
ROUTES = {
    "keyvaluestore": {"PUT /dbendpoint": "application/json"},
    "db": {"POST /tasks": "application/json", "POST /task/1/finish": "application/json"},
    "storage": {"POST /blobs": "application/octet-stream", "POST /upload/1": "multipart/form-data; boundary=b"},
    "master": {
        "POST /task": "multipart/form-data; boundary=b",
        "POST /tasks": "multipart/form-data; boundary=b",
        "POST /tasks/changes": "application/json",
        "POST /recipes/check": "application/toml",
    },
}
"""For each service, routes that read a body in different ways."""


async def answer(url, *sent):
    """Send parts of a request with pauses between them; return the answer, and assert that the connection ends."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for part in sent:
                writer.write(part)
                if part is not sent[-1]:
                    await taken(url)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            answered = await reader.readexactly(int(headers["content-length"]))
            assert await reader.read() == b"", "there must be no second answer, and the connection must be closed"
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return int(head[0].split()[1]), headers, answered


async def taken(url):
    """Wait until a service has read what was sent to it earlier; it serves ready connections in order."""
    for _ in range(3):
        async with aiohttp.request("GET", f"{url}/healthz") as health:
            assert health.status == 200


def check(name, got):
    status, headers, body = got
    assert 400 <= status < 500, (name, got)
    assert headers["content-type"].startswith("application/problem+json"), (name, got)
    assert headers["x-content-type-options"] == "nosniff", (name, got)
    problem = json.loads(body)
    assert problem["detail"].isprintable() and len(body) < 500, (name, got)
    for repeated in ("script", "xxxx", "b'", 'b"', "bytearray"):
        assert repeated not in body.decode(), (name, got)


async def test_every_service_answers_a_malformed_request_with_a_problem(keyed):
    await keyed.start("worker", trusted_proxies="192.0.2.1", slots=1, isolation="thread")
    for service in keyed.services.values():
        for name, sent in MALFORMED.items():
            check((service.name, name), await answer(service.url, sent))


def routes():
    """Yield each service with its routes, and the head of a request to each that sends chunks."""
    for service, lines in ROUTES.items():
        for line, kind in lines.items():
            sends = f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\nAccept: application/json\r\n"
            yield service, f"{line} HTTP/1.1\r\nHost: localhost\r\n{sends}"


async def test_a_body_whose_chunks_are_malformed_is_answered_with_a_problem(keyed):
    good = b"5\r\n--b\r\n\r\n"
    for service, head in routes():
        shown = f"{head}Authorization: Bearer {keyed.key}\r\n\r\n".encode()
        check(head, await answer(keyed.url(service), shown + HOSTILE + b"\r\n"))
        check(head, await answer(keyed.url(service), shown, HOSTILE + b"\r\n"))
        check(head, await answer(keyed.url(service), shown + good, HOSTILE + b"\r\n"))


async def test_malformed_chunks_of_a_request_that_was_refused_end_the_connection(keyed):
    for service, head in routes():
        check(head, await answer(keyed.url(service), f"{head}\r\n".encode(), HOSTILE + b"\r\n"))


class NoMemory:
    """Stand in for aiohttp's parser when there is no memory for the bytes of a body."""

    def feed_data(self, data):
        raise http_exceptions.BadHttpMessage("")

    def message_consumed(self):
        """Do nothing."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (http_exceptions.BadHttpMessage("Span callback error in on_body:\n\n  b'x'\n  ^"), Code.UNAVAILABLE),
        (http_exceptions.BadHttpMessage("Invalid header token:\n\n  b'callback error'\n  ^"), Code.INVALID_REQUEST),
        (http_exceptions.BadHttpMessage("Invalid header token: callback error"), Code.INVALID_REQUEST),
        (MemoryError(), Code.UNAVAILABLE),
        (RuntimeError("can't start new thread"), Code.UNAVAILABLE),
        (OSError(12, "Cannot allocate memory"), Code.UNAVAILABLE),
        (ImportError("lib.so: failed to map segment from shared object"), Code.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_request_for_which_there_is_no_memory_is_not_called_malformed(error, code, wrapped):
    if wrapped:
        outer = web.RequestPayloadError()
        outer.__cause__ = error
        error = outer
    assert malformed.refusal(error).code is code


async def test_a_request_whose_bytes_cannot_be_copied_is_refused_for_lack_of_memory(plane, monkeypatch):
    """The head and a part of the body arrive together, so the parser fails before the request is known."""
    service = await plane.start("keyvaluestore")

    class Failing:
        def feed_data(self, data):
            raise http_exceptions.BadHttpMessage(f"Span callback error in on_body:\n\n  {data!r}\n  ^")

        def message_consumed(self):
            """Do nothing."""

    begin = malformed.Handler.connection_made

    def begun(self, transport):
        begin(self, transport)
        self._parser = Failing()

    monkeypatch.setattr(malformed.Handler, "connection_made", begun)
    status, headers, body = await answer(service.url, b"PUT /key HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
    document = json.loads(body)
    assert (status, document["code"], headers["retry-after"]) == (503, "unavailable", "2")
    assert "no memory left" in document["detail"]


@pytest.mark.parametrize(
    ("length", "parser", "status", "says"),
    [("Transfer-Encoding: chunked", None, 400, "malformed"), ("Content-Length: 9", NoMemory(), 503, "no memory left")],
)
@pytest.mark.parametrize("turns", range(4))
async def test_a_body_that_breaks_off_is_never_accepted(plane, monkeypatch, turns, length, parser, status, says):
    """The body breaks off `turns` iterations of the event loop after the head, at different stages of the request."""
    made: asyncio.Future[malformed.Handler] = asyncio.get_running_loop().create_future()
    begin = malformed.Handler.connection_made

    def begun(self, transport):
        begin(self, transport)
        made.set_result(self)

    service = await plane.start("keyvaluestore")
    monkeypatch.setattr(malformed.Handler, "connection_made", begun)
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(30):
            protocol = await made
            head = f"PUT /key HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
            protocol.data_received(head.encode())
            for _ in range(turns):
                await asyncio.sleep(0)
            if parser is not None:
                protocol._parser = parser
            protocol.data_received(HOSTILE + b"\r\n")
            answered = await reader.read()
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert answered.startswith(f"HTTP/1.1 {status} ".encode()), answered
    assert says.encode() in answered
