"""A route of the API and its description, from which the router and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import wraps
from typing import Any, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from safelight.access import route
from safelight.access.caller import Access
from safelight.access.route import Route
from safelight.errors import Code
from safelight.http import query


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A method on a path, for callers with one flag of `access`.

    `query` is the record of its parameters. `body` and `answer` map media types to their contents: a type that msgspec
    can describe, or a JSON Schema; an answer without content has no media type. `request_headers` maps header names to
    descriptions, `examples` media types to bodies, and `also` the statuses of further answers to their contents.
    `errors` are the codes that are specific to this endpoint. `largest`: see `Route`. `records` says that the handler
    itself writes to the audit log what it is asked to do.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    largest: int | None = None
    records: bool = False
    tag: str
    summary: str
    description: str = ""
    query: type[msgspec.Struct] | None = None
    request_headers: Mapping[str, str] = {}
    body: Mapping[str, Any] = {}
    answer: Mapping[str, Any] = {}
    status: int = 200
    also: Mapping[int, Mapping[str, Any]] = {}
    errors: tuple[Code, ...] = ()
    examples: Mapping[str, Any] = {}


class HasEndpoints(Protocol):
    """A part of the master that has routes."""

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        ...


JSON = "application/json"
TEXT = "text/plain"
BINARY: dict[str, Any] = {"type": "string", "format": "binary"}


def add(app: web.Application, endpoints: Iterable[Endpoint]) -> None:
    """Add endpoints to the router. Every GET route also answers HEAD. A request that changes something is refused if it
    has parameters that its endpoint does not have: it would do more than its sender meant.
    """
    for endpoint in endpoints:
        strict = endpoint.query is None and endpoint.method != "GET"
        for method in ("GET", "HEAD") if endpoint.method == "GET" else (endpoint.method,):
            one = Route(
                method=method,
                path=endpoint.path,
                handler=_without_parameters(endpoint.handler) if strict else endpoint.handler,
                access=endpoint.access,
                largest=endpoint.largest,
            )
            route.add(app, [one])


class _NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


def _without_parameters(handler: Handler) -> Handler:
    @wraps(handler)  # also copies the mark of a classic handler
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.query_string:
            query(request, _NoParameters)
        return await handler(request)

    return handle
