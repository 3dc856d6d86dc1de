"""HTTP in every service: problem documents, JSON bodies, authentication, health, metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from safelight import tracing
from safelight.access import malformed, route
from safelight.access.caller import CALLER, NOBODY, Access, Caller, holds
from safelight.access.forwarded import client_address
from safelight.access.malformed import HARDENED
from safelight.access.origin import Origins
from safelight.errors import Code, Error, lacks_memory, no_memory
from safelight.http.metrics import RequestMetrics
from safelight.service import Service
from safelight.untrusted.validation import refusal
from safelight.wire import DEFAULT_TENANT, decode, encode

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads

_BODY_TIME = 60.0
"""Seconds in which the body of a request must arrive; uploads have limits of their own."""
_CHECK = 4.0
"""Seconds for one check of readiness; probes wait for 5 or 6."""

TENANT = "tenant"
"""The query parameter with which an administrator of the system acts for a tenant (master/access/tenant.py)."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Awaitable[web.StreamResponse]])


SERVICE: web.AppKey[Service] = web.AppKey("service")
_JSON_HEADERS: CIMultiDict[str] = CIMultiDict({hdrs.CONTENT_TYPE: "application/json", **HARDENED})


class _Json(web.Response):
    """A response that starts with the headers of `HARDENED`: copying them is cheaper than adding each."""


class _Wait(msgspec.Struct, frozen=True, kw_only=True):
    wait: Annotated[float, msgspec.Meta(ge=0)] = 0.0


def classic(handler: F) -> F:
    """Mark a handler of the classic protocol, whose errors are a plain sentence unless the client asks for JSON."""
    handler.__dict__["classic"] = True
    return handler


def refusing(handler: F, answer: Callable[[web.Request, Error], web.Response]) -> F:
    """Mark a handler whose protocol answers errors in its own way, also those of the gate."""
    handler.__dict__["refusing"] = answer
    return handler


def json_response(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer with JSON."""
    response = _Json(body=encode(value), status=status, headers=_JSON_HEADERS)
    if headers:
        response.headers.update(headers)
    return response


def problem_response(error: Error) -> web.Response:
    """Answer with a problem document."""
    return web.Response(
        body=encode(error.problem()),
        status=error.status,
        content_type="application/problem+json",
        headers=_error_headers(error),
    )


def _error_headers(error: Error) -> dict[str, str] | None:
    if error.code is Code.UNAUTHENTICATED:
        return {"WWW-Authenticate": 'Bearer realm="safelight"'}
    if error.code is Code.RANGE_NOT_SATISFIABLE and "size" in error.extra:
        return {"Content-Range": f"bytes */{error.extra['size']}"}  # RFC 9110, 15.5.17
    return {"Retry-After": str(max(1, round(error.extra.get("retry_after", 1))))} if error.transient else None


def caller(request: web.Request) -> Caller:
    """Return who sent a request."""
    return request[CALLER]


def client(request: web.Request) -> str:
    """Return the address of the client that sent a request, also behind trusted proxies."""
    return client_address(request, request.app[SERVICE].gate.policy.proxies)


def location(request: web.Request, path: str) -> str:
    """Return a path of this service as its callers see it, below the public URL's prefix."""
    return request.app[SERVICE].gate.policy.prefix + path


def absolute(request: web.Request, path: str) -> str:
    """Return the URL of a path of this service: below the public URL, or at the name that the caller used."""
    policy = request.app[SERVICE].gate.policy
    origin = policy.public.origin() if policy.public is not None else request.url.origin()
    return f"{origin}{policy.prefix}{path}"


async def read_body(request: web.Request, most: int | None = None) -> bytes:
    """Read the body, which must arrive within a minute. It is read once. Raises INVALID_REQUEST, TOO_LARGE.

    It may have as many bytes as the application allows, or `most`.
    """
    if most is not None:
        request = request.clone(client_max_size=most)
    if request.content.is_eof():
        return _read_at_once(request)
    try:
        async with asyncio.timeout(_BODY_TIME):
            return await request.read()
    except TimeoutError:
        sentence = f"The request's body did not arrive within {_BODY_TIME:g} s."
        raise Error(Code.INVALID_REQUEST, sentence) from None


def _read_at_once(request: web.Request) -> bytes:
    """Read a body that arrived together with the head, without waiting."""
    content, most = request.content, request.client_max_size
    if most and content.total_bytes > most:
        raise web.HTTPRequestEntityTooLarge(most)
    data = content.read_nowait()
    while not content.at_eof():
        data += content.read_nowait()
    return data


async def read_json(request: web.Request, kind: type[T], most: int | None = None) -> T:
    """Decode the JSON body as `kind`. Raises INVALID_REQUEST with the position of the invalid value, and TOO_LARGE.

    `most` is as for `read_body`.
    """
    return decode(await read_body(request, most), kind)


def query(request: web.Request, kind: type[T]) -> T:
    """Read the query string as a record; each parameter may be given once. Raises INVALID_REQUEST.

    The parameter TENANT is ignored, because it says for whom a request is made.
    """
    values: dict[str, Any] = {}
    for name, value in request.query.items():
        if name in values:
            raise Error(Code.INVALID_REQUEST, f"Give the parameter {name} once.", position=name)
        if name != TENANT or TENANT in getattr(kind, "__struct_fields__", ()):
            values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refusal(error, kind, noun="parameter", whole="query", flat=True) from None


def prepare(app: web.Application, service: Service) -> None:
    """Add what every service has: health, readiness, metrics, errors as problems, authentication."""
    app[SERVICE] = service
    route.add(
        app,
        route.get("/healthz", _healthz, Access.OPEN),
        route.get("/readyz", _readyz, Access.OPEN),
        route.get("/metrics", _metrics, Access.CLUSTER),
    )
    service.routes = route.mount(app, service.gate.policy.prefix)
    app.middlewares.append(_middleware(service))
    app.on_response_prepare.append(_hardening(service.gate.origins, f"safelight-{service.name}"))


_NOWHERE = route.Mounted(Access.OPEN, "none")
"""The route of a path that does not exist."""


def _hardening(origins: Origins, server: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def harden(request: web.Request, response: web.StreamResponse) -> None:
        response.headers[hdrs.SERVER] = server  # by which a client notices that it asks another service
        if type(response) is not _Json:
            setdefault = response.headers.setdefault
            for name, value in HARDENED.items():
                setdefault(name, value)
        if origins.named:
            origins.allow(request, response)

    return harden


def _middleware(service: Service) -> Middleware:
    answered = RequestMetrics(service.registry)

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        start = time.perf_counter()
        mounted = service.routes.get(request.match_info.route, _NOWHERE)
        status = 499  # the client disconnected before it was answered
        service.begin()
        try:
            if tracing.is_on():
                with _span(request, mounted.path) as span:
                    response = await _answer(request, handler, service, mounted)
                    if span is not None:
                        span.set_attribute("http.response.status_code", response.status)
            else:
                response = await _answer(request, handler, service, mounted)
            status = response.status
            if service.stopping.is_set():
                response.force_close()
            return response
        finally:
            service.end()
            taken = time.perf_counter() - start
            answered.count(request.method, mounted.path, status, taken)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s %s", request.method, request.path, extra={"status": status, "seconds": round(taken, 4)})

    return handle


def _span(request: web.Request, path: str) -> AbstractContextManager[Any]:
    """Make a span for a request that belongs to a trace or begins one."""
    name: str | None = getattr(request.match_info.handler, "traced", None)
    return tracing.span(
        name or f"{request.method} {path}",
        parent=request.headers.get(tracing.HEADER),
        root=name is not None,
        kind="server",
        attributes={"http.request.method": request.method, "http.route": path},
    )


async def _answer(
    request: web.Request, handler: Handler, service: Service, mounted: route.Mounted
) -> web.StreamResponse:
    try:
        gate = service.gate
        if request.method == hdrs.METH_OPTIONS and (preflight := gate.origins.preflight(request)) is not None:
            return preflight
        # Most requests come from services, which can be authenticated without waiting.
        found = gate.recognise(request, mounted.access) or await gate.admit(request, mounted.access)
        request[CALLER] = found
        service.connections.note(request, found)
        headers = request.headers
        if hdrs.CONTENT_ENCODING in headers:
            _refuse_encoded(headers[hdrs.CONTENT_ENCODING])
        if mounted.body and (mounted.largest is not None or hdrs.EXPECT in headers):
            await route.ask_for_body(request, mounted)
        return await handler(request)
    except Error as error:
        return _refused(request, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _translated(request, error)
    except web.RequestPayloadError as error:
        response = problem_response(malformed.refusal(error))
        response.force_close()
        return response
    except asyncio.CancelledError:
        raise
    except ConnectionError as error:
        log.debug("The client of %s %s has disconnected: %s", request.method, request.path, error)
        raise asyncio.CancelledError from None  # which ends the connection
    except Exception as error:
        if lacks_memory(error):
            return _refused(request, no_memory())
        log.exception("Unexpected error in %s %s", request.method, request.path)
        return problem_response(Error(Code.INTERNAL, "Unexpected error in the service. Its log says more."))


def _refused(request: web.Request, error: Error) -> web.Response:
    if error.status >= 500:
        log.warning("%s %s: %s", request.method, request.path, error)
        error = as_told(error, request.get(CALLER, NOBODY))
    answer: Callable[[web.Request, Error], web.Response] | None = getattr(request.match_info.handler, "refusing", None)
    if answer is not None:
        return answer(request, error)
    if getattr(request.match_info.handler, "classic", False) and "json" not in request.headers.get("Accept", ""):
        return web.Response(text=error.detail, status=error.status, headers=_error_headers(error))
    return problem_response(error)


def as_told(error: Error, caller: Caller) -> Error:
    """Return an error as its caller may see it: addresses inside the system are only for those who operate it."""
    if _operates(caller) or "://" not in error.detail:
        return error
    return Error(error.code, "A part of the system does not answer. Try again later.", **error.extra)


def _operates(caller: Caller) -> bool:
    return caller.tenant == DEFAULT_TENANT and holds(caller.scopes, Access.OPERATE | Access.ADMINISTER)


def _refuse_encoded(encoding: str) -> None:
    """Refuse encoded bodies: a small one could unpack to any size."""
    if encoding.strip().lower() not in ("", "identity"):
        raise Error(Code.UNSUPPORTED_FORMAT, "Bodies with a Content-Encoding are not accepted. Send it uncompressed.")


def _translated(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return problem_response(Error(Code.TOO_LARGE, "The body of the request is larger than this service allows."))
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted(error.allowed_methods)
        detail = f"{request.path} allows {', '.join(allowed)}, not {request.method}."
        response = problem_response(Error(Code.METHOD_NOT_ALLOWED, detail))
        response.headers["Allow"] = ", ".join(allowed)
        return response
    if error.status == 404:
        return problem_response(Error(Code.NOT_FOUND, f"There is nothing at {request.path}."))
    return problem_response(Error.from_problem({"detail": error.text or error.reason}, error.status))


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    """Answer whether the service is ready; with `wait` (seconds), wait until it is."""
    service = request.app[SERVICE]
    deadline = time.monotonic() + min(query(request, _Wait).wait, 60.0)
    while True:
        failures = await _failures(service)
        if not failures:
            return web.Response(text="ready\n")
        if service.stopping.is_set() or time.monotonic() >= deadline:
            return problem_response(_not_ready(failures, service.gate.known(request)))
        await asyncio.sleep(0.05)


def _not_ready(failures: dict[str, str], caller: Caller) -> Error:
    """Name what the service waits for. The reasons contain addresses, so only those who operate the system get them."""
    if _operates(caller):
        why = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    else:
        why = (
            f"Waiting for: {', '.join(sorted(failures))}. The log of this service says why; so does this answer if "
            "the request has the cluster key."
        )
    return Error(Code.UNAVAILABLE, f"Not ready. {why}", waiting_for=sorted(failures))


async def _failures(service: Service) -> dict[str, str]:
    failures = {"service": "it is stopping"} if service.stopping.is_set() else {}
    names = list(service.checks)
    results = await asyncio.gather(*(_in_time(service.checks[name]) for name in names), return_exceptions=True)
    for name, result in zip(names, results, strict=True):
        if isinstance(result, BaseException):
            failures[name] = result.detail if isinstance(result, Error) else repr(result)
    return failures


async def _in_time(check: Callable[[], Awaitable[None]]) -> None:
    """Run a check. A probe gives up after a few seconds, and would not learn the reason."""
    try:
        async with asyncio.timeout(_CHECK):
            await check()
    except TimeoutError:
        raise Error(Code.UNAVAILABLE, f"No answer for {_CHECK:g} seconds.") from None


async def _metrics(request: web.Request) -> web.Response:
    refreshers = request.app[SERVICE].refreshers
    await asyncio.gather(*(refresh() for refresh in refreshers), return_exceptions=True)
    body = await asyncio.to_thread(generate_latest, request.app[SERVICE].registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
