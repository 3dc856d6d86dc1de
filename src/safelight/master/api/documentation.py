"""Serve the documentation: the OpenAPI document, and a page that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from safelight.access import route
from safelight.access.caller import Access
from safelight.http import json_response, location
from safelight.master.api import openapi
from safelight.master.api.endpoint import Endpoint

_STATIC = Path(__file__).with_name("static")
_STRICT = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def routes(endpoints: Sequence[Endpoint]) -> list[route.Route]:
    """Return the routes of the documentation of these endpoints."""

    @cache
    def document() -> dict[str, Any]:  # made on the first request, since most masters never need it
        return openapi.document(endpoints)

    async def openapi_json(request: web.Request) -> web.Response:
        prefix = location(request, "")
        return json_response({**document(), "servers": [{"url": prefix}]} if prefix else document())

    return [
        *route.get("/openapi.json", openapi_json, Access.PAGE),
        *route.get("/docs", _file("docs.html"), Access.PAGE),
        *route.get("/docs/docs.js", _file("docs.js"), Access.PAGE),
        *route.get("/docs/docs.css", _file("docs.css"), Access.PAGE),
    ]


def _file(name: str) -> Handler:
    async def send(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(_STATIC / name, headers=_STRICT)

    return send
