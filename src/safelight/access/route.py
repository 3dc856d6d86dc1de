"""Routes, each with the access that it needs. An application with a route that names none does not start."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

from safelight.access.caller import Access
from safelight.errors import Code, Error


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A handler for a method on a path, and the access that a caller needs (one flag of `access`).

    A body that announces more than `largest` bytes is refused before it is sent.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    largest: int | None = None


class Mounted(msgspec.Struct, frozen=True):
    """A route in a router: its access, and the path under which its requests are counted.

    `body` is whether requests have one, of at most `largest` bytes (see `Route`).
    """

    access: Access
    path: str
    body: bool = False
    largest: int | None = None


_WITH_BODY = frozenset({hdrs.METH_POST, hdrs.METH_PUT, hdrs.METH_PATCH})

Table = dict[web.AbstractRoute, Mounted]
ROUTES: web.AppKey[list[Route]] = web.AppKey("routes")


_READING = (hdrs.METH_GET, hdrs.METH_HEAD)


def get(path: str, handler: Handler, access: Access) -> list[Route]:
    """Answer GET, and HEAD with the same status and headers; aiohttp sends no body."""
    return [Route(method=method, path=path, handler=handler, access=access) for method in _READING]


def post(path: str, handler: Handler, access: Access) -> list[Route]:
    """Answer POST."""
    return [Route(method=hdrs.METH_POST, path=path, handler=handler, access=access)]


def put(path: str, handler: Handler, access: Access) -> list[Route]:
    """Answer PUT."""
    return [Route(method=hdrs.METH_PUT, path=path, handler=handler, access=access)]


def patch(path: str, handler: Handler, access: Access) -> list[Route]:
    """Answer PATCH."""
    return [Route(method=hdrs.METH_PATCH, path=path, handler=handler, access=access)]


def delete(path: str, handler: Handler, access: Access) -> list[Route]:
    """Answer DELETE."""
    return [Route(method=hdrs.METH_DELETE, path=path, handler=handler, access=access)]


async def _wait(request: web.Request) -> None:
    """Delay `100 Continue`: the caller may not be allowed to send a body."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="The only supported expectation is 100-continue.")


async def ask_for_body(request: web.Request, mounted: Mounted) -> None:
    """Ask for the body once access is granted and its announced length is allowed (RFC 9110, 10.1.1)."""
    largest = mounted.largest
    if largest is not None and (request.content_length or 0) > largest:
        detail = f"The request announces more than {largest} bytes. Upload a smaller photo."
        raise Error(Code.TOO_LARGE, detail, limit=largest)
    if hdrs.EXPECT in request.headers and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the interim response is not part of the final one


def add(app: web.Application, *routes: Iterable[Route]) -> None:
    """Give an application routes; `mount` puts them into its router."""
    if ROUTES not in app:
        app[ROUTES] = []
    app[ROUTES].extend(route for group in routes for route in group)


def mount(app: web.Application, prefix: str = "") -> Table:
    """Put an application's routes into its router, and again below `prefix`; return the access of each.

    Raises ValueError for a route that was added in another way, or that names no access.
    """
    table: Table = {}
    for route in app.get(ROUTES, []):
        if not route.access:
            raise ValueError(f"{route.method} {route.path} names no access.")
        for path in dict.fromkeys((route.path, prefix + route.path)):
            mounted = app.router.add_route(route.method, path, route.handler, expect_handler=_wait)
            table[mounted] = Mounted(route.access, route.path, route.method in _WITH_BODY, route.largest)
    if prefix:
        for method in _READING:
            mounted = app.router.add_route(method, prefix, _to_the_page)
            table[mounted] = Mounted(Access.PAGE, "/")
    for found in app.router.routes():
        if found not in table:
            where = found.resource.canonical if found.resource is not None else found
            raise ValueError(f"{found.method} {where} names no access: add it with access.route.add.")
    return table


async def _to_the_page(request: web.Request) -> web.Response:
    """Redirect a browser to the page below a prefix, since the addresses in the page are relative to it."""
    return web.Response(status=308, headers={hdrs.LOCATION: f"{request.path}/"})
