"""The master's routes."""

from __future__ import annotations

from aiohttp import web

from safelight import web as page
from safelight.access import route
from safelight.access.caller import Access
from safelight.http import location
from safelight.master.api import documentation, endpoint
from safelight.master.api.endpoint import Endpoint

_BODY = 16 << 20
"""The largest JSON body, in bytes; photos are streamed and have their own limits."""
_INDEX = """safelight: photos go in, workers process them, results come out.

  upload      curl -F image=@photo.jpg {url}/task
  look        curl {url}/tasks
  API         {url}/docs and {url}/openapi.json
  health      {url}/readyz and {url}/metrics
"""


def make(endpoints: list[Endpoint]) -> web.Application:
    """Put the API, its documentation and the web page together."""
    app = web.Application(client_max_size=_BODY)
    endpoint.add(app, endpoints)
    route.add(app, documentation.routes(endpoints), page.routes() or route.get("/", _index, Access.PAGE))
    return app


async def _index(request: web.Request) -> web.Response:
    return web.Response(text=_INDEX.format(url=str(request.url.origin()) + location(request, "")))
