"""The master's routes."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from safelight import web as page
from safelight.http import json_response
from safelight.master import openapi, operations
from safelight.master.operations import Operation

_BODY = 16 << 20
"""Bytes of a JSON body; photos are streamed and bounded elsewhere."""
_STATIC = Path(__file__).with_name("static")
_STRICT = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
}
_HERE = """safelight: photos go in, workers process them, results come out.

  upload      curl -F image=@photo.jpg {url}/task
  look        curl {url}/tasks
  API         {url}/docs and {url}/openapi.json
  health      {url}/readyz and {url}/metrics
"""


def make(described: list[Operation]) -> web.Application:
    """Put the API, its documentation and the web page together."""
    app = web.Application(client_max_size=_BODY)
    operations.add(app, described)
    document = openapi.document(described)

    async def openapi_json(_request: web.Request) -> web.Response:
        return json_response(document)

    app.router.add_get("/openapi.json", openapi_json)
    app.router.add_get("/docs", _docs("docs.html"))
    app.router.add_get("/docs/docs.js", _docs("docs.js"))
    app.router.add_get("/docs/docs.css", _docs("docs.css"))
    if pages := page.routes():
        app.router.add_routes(pages)
    else:
        app.router.add_get("/", _where_things_are)
    return app


def _docs(name: str) -> Handler:
    async def file(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(_STATIC / name, headers=_STRICT)

    return file


async def _where_things_are(request: web.Request) -> web.Response:
    return web.Response(text=_HERE.format(url=request.url.origin()))
