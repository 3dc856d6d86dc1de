"""The common base of all clients: the address of the service, credentials, retries, and errors."""

from __future__ import annotations

import asyncio
import io
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Protocol, Self, TypeVar

import aiohttp
from aiohttp.payload import Payload

from safelight import tracing
from safelight.client.answers import (
    ANSWER_TIME,
    check_service,
    decoded,
    error_of,
    is_page,
    misdirected,
    page_instead,
    read,
    target,
)
from safelight.client.availability.failures import NOT_SENT, advice_on, once, reason_of
from safelight.client.availability.instances import Several
from safelight.client.availability.liveness import Liveness, UnresponsiveError
from safelight.client.availability.names import Resolver
from safelight.client.availability.retrying import Breaker, retrying
from safelight.client.availability.sockets import watched
from safelight.errors import Code, Error
from safelight.wire import encode

T = TypeVar("T")

Credentials = Callable[[str, str], Mapping[str, str]]
"""Returns, for a method and path, the headers that authenticate the request. Clients add credentials nowhere else."""

_SAFE = ("GET", "HEAD")
_LEFT_OUT = frozenset({".", ".."})
_LARGE = 1 << 20
_NOT_MODIFIED = 304
_UNAVAILABLE = 503
_ELSEWHERE = 307
"""The status with which the master redirects a download to the bucket."""

Body = bytes | io.BytesIO | AsyncIterator[bytes] | Payload | aiohttp.MultipartWriter | None


class Address(Protocol):
    """The address of a service."""

    async def resolve(self, apart: Collection[str] = ()) -> str:
        """Return a base URL without a trailing slash that is not in `apart`. Raises UNAVAILABLE while none is known."""
        ...

    def failed(self, url: str) -> None:
        """Record that a URL did not answer."""
        ...

    def answered(self, url: str) -> None:
        """Record that a URL has answered."""
        ...


def session(
    *,
    limit: int = 100,
    authorities: str | None = None,
    trace: aiohttp.TraceConfig | None = None,
    connector: type[aiohttp.TCPConnector] = aiohttp.TCPConnector,
) -> aiohttp.ClientSession:
    """Open the one HTTP session of a program; close it by `async with`.

    It has no total timeout, since blobs may have any size: connecting may take 5 s, and `Connection` limits the time
    without a byte. `authorities` is a PEM file of the certificate authorities to trust instead of the system's,
    `trace` hears of requests, and the `connector` opens connections. Raises OSError.
    """
    trust = True if authorities is None else ssl.create_default_context(cafile=authorities)
    return aiohttp.ClientSession(
        connector=connector(limit=limit, keepalive_timeout=30, ssl=trust, resolver=Resolver(), socket_factory=watched),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        auto_decompress=False,
        headers={aiohttp.hdrs.ACCEPT_ENCODING: "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace] if trace else None,
    )


def no_credentials(_method: str, _path: str) -> Mapping[str, str]:
    """Send no credentials: for programs on this machine, and for requests that need none."""
    return {}


def bearer(token: str) -> Credentials:
    """Send an API key."""
    headers = {"Authorization": f"Bearer {token}"}
    return lambda _method, _path: headers


class Connection:
    """Sends requests to one service, with a session that the caller opens and closes."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        address: Address,
        *,
        credentials: Credentials = no_credentials,
        retry_for: float = 15.0,
        idle_timeout: float = 30.0,
        answer_timeout: float | None = None,
        liveness: Liveness | None = None,
        service: str = "",
    ) -> None:
        """Limit the time without a byte to `idle_timeout`, or for JSON answers to `answer_timeout`, in seconds.

        With `liveness`, requests to an instance that does not answer fail within seconds. With the name of a service,
        answers of others are refused, since people may have given a wrong address.
        """
        self._http = http
        self._address = address
        self._credentials = credentials
        self.retry_for = retry_for
        self._idle_timeout = idle_timeout
        self._answer_timeout = idle_timeout if answer_timeout is None else answer_timeout
        self._liveness = liveness
        self._service = service
        self.breaker: Breaker | None = None

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
        idle_timeout: float | None = None,
        apart: set[str] | None = None,
        redirects: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer with its body unread.

        `wait` is the duration of a long poll, which is added to the idle timeout. Raises the service's `Error`,
        UNAVAILABLE if nothing answers, or MISDIRECTED for a redirect; with `redirects`, the redirect of a download is
        yielded. A request that did not reach an instance is sent to another one, and so is a GET or HEAD that got no
        answer or 503. With `apart`, use an instance that is not in this set, and add it.
        """
        idle = (self._idle_timeout if idle_timeout is None else idle_timeout) + wait
        options = self._options(method, path, params, body, headers or {}, idle)
        base, response = await self._send(method, path, options, apart)
        try:
            async with response:
                if response.status != _ELSEWHERE or not redirects:
                    await self._check(response, base, path)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._no_answer(base, error) from error

    def _options(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Body,
        headers: Mapping[str, str],
        idle: float,
    ) -> dict[str, Any]:
        """Return the options of a request. Raises INVALID_REQUEST for headers that cannot be sent.

        Raises NOT_FOUND for `.` and `..` as the name of something: a URL leaves them out, and would name another thing.
        """
        if not _LEFT_OUT.isdisjoint(path.split("/")):
            raise Error(Code.NOT_FOUND, "Nothing can be called . or .. here: a URL leaves that out.")
        if isinstance(body, bytes):
            # Send a large body in chunks, so that other requests can be sent in between.
            body = aiohttp.BytesPayload(body) if len(body) <= _LARGE else io.BytesIO(body)
        query = params and {key: str(value) for key, value in params.items() if value is not None}
        return {
            "params": query or None,
            "data": body,
            "headers": _sendable({**headers, **tracing.headers(), **self._credentials(method, path)}),
            "timeout": _timeout(idle),
            "allow_redirects": False,
        }

    @asynccontextmanager
    async def elsewhere(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Follow a redirect of a service, without credentials, which are only for the service."""
        timeout = _timeout(self._idle_timeout)
        address = target(url)
        place = address.authority
        try:
            async with self._http.get(address, headers=headers, timeout=timeout, allow_redirects=False) as response:
                if response.status >= 300:
                    said = f"{place} answered {response.status} to a download that was redirected there. Try again."
                    raise Error(Code.UNAVAILABLE, said)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            detail = f"No answer from {place}, where the download was redirected: {reason_of(error)}."
            raise Error(Code.UNAVAILABLE, detail) from error

    async def _send(
        self, method: str, path: str, options: dict[str, Any], apart: set[str] | None = None
    ) -> tuple[str, aiohttp.ClientResponse]:
        """Send a request. Of an instance that answers 503, others may do what was asked: it lacks what it needs."""
        used: set[str] = set() if apart is None else apart
        refusal = None
        while True:
            try:
                base, response = await self._reach(method, path, options, used)
            except Error:
                if refusal is not None:
                    raise refusal from None
                raise
            if response.status != _UNAVAILABLE:
                self._address.answered(base)
                return base, response
            self._address.failed(base)
            if method not in _SAFE:
                return base, response
            try:
                async with response:
                    await self._check(response, base, path)
            except Error as error:
                refusal = error
            except (aiohttp.ClientError, TimeoutError) as error:
                refusal = self._no_answer(base, error)

    async def _reach(
        self, method: str, path: str, options: dict[str, Any], used: set[str]
    ) -> tuple[str, aiohttp.ClientResponse]:
        """Send a request to an instance that is not in `used`, and add it; to another one if nothing reached it."""
        tried: set[str] = set()
        while True:
            base = await self._address.resolve(used)
            used.add(base)
            try:
                response = await self._request(method, base, path, options)
            except UnresponsiveError:
                self._address.failed(base)
                used.discard(base)
                if base in tried:
                    raise
                tried.add(base)
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = self._no_answer(base, error)
                used.discard(base)
                repeatable = isinstance(error, NOT_SENT) or (method in _SAFE and not isinstance(error, TimeoutError))
                if not repeatable or base in tried:
                    raise failure from error
                tried.add(base)
            else:
                return base, response

    async def _request(self, method: str, base: str, path: str, options: dict[str, Any]) -> aiohttp.ClientResponse:
        """Send one request to one instance, unless that is known not to answer."""
        liveness, longest = self._liveness, _longest(options)
        if liveness is None:
            async with asyncio.timeout(longest):
                return await self._http.request(method, base + path, **options)
        if liveness.is_down(base):
            raise UnresponsiveError.of(base)
        response = None
        async with asyncio.timeout(longest) as request:
            liveness.begin(base, request)
            try:
                response = await self._http.request(method, base + path, **options)
            finally:
                liveness.end(base, request, answered=response is not None)
        return response

    def _no_answer(self, base: str, error: Exception) -> Error:
        self._address.failed(base)
        return Error(Code.UNAVAILABLE, f"No answer from {base}: {reason_of(error)}. {advice_on(error)}")

    async def _check(self, response: aiohttp.ClientResponse, base: str, path: str) -> None:
        """Raise the error of a service, or MISDIRECTED for an answer that comes from elsewhere or leads there."""
        if self._service:
            check_service(response, base, self._service)
        if response.status >= 400:
            raise await error_of(response, base, named=bool(self._service))
        if response.status >= 300 and response.status != _NOT_MODIFIED:
            raise misdirected(base, path, response.headers.get("Location", ""))

    async def call(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 0.0,
        retry: bool = True,
    ) -> T:
        """Send JSON or a body, and decode the answer. With `retry`, it is safe to repeat, for `retry_for` seconds."""
        sent = {"Accept": "application/json", **(headers or {})}
        if json is not None:
            body = json if isinstance(json, bytes) else encode(json)
            sent["Content-Type"] = "application/json"

        async def attempt() -> T:
            options = self._options(method, path, params, body, sent, self._answer_timeout + wait)
            options["middlewares"] = (once,) if method == "DELETE" and not retry else ()
            base, response = await self._send(method, path, options)
            try:
                async with response:
                    await self._check(response, base, path)
                    data = await read(response)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise self._no_answer(base, error) from error
            if kind is bytes:
                return data  # type: ignore[return-value]
            if is_page(data):
                raise Error(Code.MISDIRECTED, page_instead(base, response.status))
            return decoded(data or b"null", kind, f"{method} {path}")

        if not retry:
            return await attempt()
        deadline = time.monotonic() + wait + self.retry_for
        again = retrying(attempt, retry_for=self.retry_for, deadline=deadline, breaker=self.breaker)
        return await again  # type: ignore[no-any-return]


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    """Return headers whose values may come from people. Raises INVALID_REQUEST for line breaks and the like."""
    for name, value in headers.items():
        if not value.isprintable():
            detail = f"The value of {name} contains a line break or another character that no header can have."
            raise Error(Code.INVALID_REQUEST, detail)
    return headers


@lru_cache(maxsize=64)
def _timeout(idle: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=idle)


def _longest(options: Mapping[str, Any]) -> float | None:
    """Return the time limit for the head of an answer, in seconds, or None if a body is streamed first."""
    body = options["data"]
    if body is not None and not isinstance(body, aiohttp.BytesPayload):
        return None
    return float(options["timeout"].sock_read) + ANSWER_TIME


class ServiceClient:
    """Base of the clients: it only has a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str | Address, *, credentials: Credentials = no_credentials) -> AsyncIterator[Self]:
        """Open a client with a session of its own, for `HOST:PORT` or a URL, or several of them separated by commas."""
        where = Several(address) if isinstance(address, str) else address
        async with session() as http:
            yield cls(Connection(http, where, credentials=credentials))

    async def health(self) -> bool:
        """Return whether the service answers."""
        try:
            await self._connection.call("GET", "/healthz", bytes, retry=False)
        except Error:
            return False
        return True

    async def is_ready(self, *, wait: float = 0.0) -> bool:
        """Return whether the service is ready, after waiting for that up to `wait` seconds."""
        try:
            await self._connection.call("GET", "/readyz", bytes, params={"wait": wait}, wait=wait, retry=False)
        except Error:
            return False
        return True
