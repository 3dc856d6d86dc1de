"""Answer malformed requests, which aiohttp would otherwise answer before our code sees them.

aiohttp's own answers are plain text that repeats what was sent. Ours are problem documents like all others, and name
only the kind of mistake.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from aiohttp import StreamReader, http_exceptions, web
from aiohttp.http_parser import RawRequestMessage
from multidict import istr

from safelight.errors import Code, Error, lacks_memory, no_memory
from safelight.wire import encode

log = logging.getLogger(__name__)

HARDENED = {
    istr("X-Content-Type-Options"): "nosniff",
    istr("Cross-Origin-Resource-Policy"): "same-origin",
    istr("Content-Security-Policy"): "default-src 'none'; frame-ancestors 'none'",
    istr("Referrer-Policy"): "no-referrer",
}
"""Default headers of every response: no browser may run it, frame it or share it with other sites."""

_SENTENCES: tuple[tuple[type[BaseException], str], ...] = (
    (http_exceptions.LineTooLong, "The request line or a header is too long."),
    (http_exceptions.InvalidHeader, "A header is malformed."),
    (http_exceptions.BadHttpMethod, "The request does not begin with a method of HTTP. Does it speak TLS or HTTP/2?"),
    (http_exceptions.InvalidURLError, "The address in the request line is malformed."),
    (http_exceptions.BadStatusLine, "The request line is malformed."),
    (http_exceptions.TransferEncodingError, "The chunks of the request's body are malformed."),
    (http_exceptions.ContentLengthError, "The request's body is shorter than its Content-Length."),
    (http_exceptions.PayloadEncodingError, "The request's body is malformed."),
    (ConnectionError, "The connection was closed before the whole body had come."),
)


def refusal(error: BaseException | None) -> Error:
    """Return the error for a request that could not be read, in our words: the parser's message repeats what was sent.

    INVALID_REQUEST if the request is malformed; UNAVAILABLE if there was no memory for it.
    """
    seen: set[int] = set()
    said = "The request is not valid HTTP/1.1."
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if lacks_memory(error) or _parser_failed(error):
            return no_memory()
        found = next((words for kind, words in _SENTENCES if isinstance(error, kind)), None)
        if found is not None:
            said = found
            break
        error = error.__cause__
    return Error(Code.INVALID_REQUEST, said)


def _parser_failed(error: BaseException) -> bool:
    """Whether aiohttp's parser could not copy bytes, which it reports like a malformed request.

    Its message begins with that of llhttp, such as "Span callback error in on_body". What was sent comes after it.
    """
    if not isinstance(error, http_exceptions.BadHttpMessage):
        return False
    return "callback error" in error.message.partition(":")[0]


def handlers(server: web.Server) -> Callable[[], Handler]:
    """Return the factory for the protocol of each connection to a server, in the running loop."""
    loop = asyncio.get_running_loop()
    return lambda: Handler(server, loop=loop, **server._kwargs)  # noqa: SLF001 - no other way to it


class Handler(web.RequestHandler):
    """The protocol of a connection, which answers malformed requests with a problem document and then closes."""

    __slots__ = ("_begun", "_body", "_chunked", "carrier")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what `web.RequestHandler` takes."""
        super().__init__(*args, **kwargs)
        self._body: StreamReader | None = None
        """The body of the last request whose head has arrived."""
        self._chunked = False
        """Whether that body comes in chunks, which may be malformed."""
        self._begun: StreamReader | None = None
        """The body of the last request whose handler was called."""
        self.carrier: asyncio.Transport | None = None
        """The transport, which is kept after `transport` was given up while written data still waits to be sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.carrier = transport

    def data_received(self, data: bytes) -> None:
        """Receive bytes, and notice malformed bytes of a body at once."""
        super().data_received(data)
        if self._messages:
            message, body = self._messages[-1]
            if isinstance(message, RawRequestMessage):
                self._body, self._chunked = body, message.chunked
            elif self._body is not None and not self._body.is_eof():
                self._break_off(self._body)

    def _handle_request(
        self, request: web.BaseRequest, *args: Any
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        # aiohttp notes this itself, but only once the task of the response runs. A coroutine around it would cost one
        # more for each request.
        self._begun, self._current_request = request.content, request
        return super()._handle_request(request, *args)

    def _break_off(self, body: StreamReader) -> None:
        """Tell the reader of a body that no more of it will arrive; aiohttp would let it wait."""
        waiting = self._current_request is not None or self._begun is not body
        self._messages.pop()  # the error does not count as another request
        self._lingering_time = 0.0
        if waiting and self._chunked:
            broken = web.RequestPayloadError()
            broken.__cause__ = cause = http_exceptions.TransferEncodingError("malformed chunks")
            body.set_exception(broken, cause)
        elif waiting:  # a body of known length cannot be malformed, so memory ran out
            body.set_exception(MemoryError())
        else:  # it is answered already
            body.feed_eof()
        self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the parser's, which repeats what was sent
    ) -> web.StreamResponse:
        """Answer an error. Raises ConnectionError if a part of another answer was already sent."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("Unexpected error in a connection of %s", request.remote, exc_info=exc)
            error = Error(Code.INTERNAL, "Unexpected error in the service. Its log says more.")
        else:
            error = refusal(exc)
            level = logging.WARNING if error.transient else logging.DEBUG
            log.log(level, "Unreadable request from %s: %s (%s)", request.remote, error.detail, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer was already sent.")
        response = web.Response(
            body=encode(error.problem()),
            status=error.status,
            content_type="application/problem+json",
            headers=HARDENED,
        )
        if error.transient:
            response.headers["Retry-After"] = str(error.extra["retry_after"])
        response.force_close()
        return response
