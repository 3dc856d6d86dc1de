"""Routes, each with the access that it asks for. An application with a route that names none does not start."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from safelight.access.caller import Access


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A handler for a method on a path, and who may call it: whoever holds one of `access`."""

    method: str
    path: str
    handler: Handler
    access: Access


class Mounted(msgspec.Struct, frozen=True):
    """What is known of a route in a router: the access, and the path under which it is counted."""

    access: Access
    path: str


Table = dict[web.AbstractRoute, Mounted]
ROUTES: web.AppKey[list[Route]] = web.AppKey("routes")


def get(path: str, handler: Handler, access: Access, *, head: bool = True) -> list[Route]:
    """Answer GET, and HEAD unless told otherwise."""
    methods = (hdrs.METH_GET, hdrs.METH_HEAD) if head else (hdrs.METH_GET,)
    return [Route(method=method, path=path, handler=handler, access=access) for method in methods]


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


def add(app: web.Application, *routes: Iterable[Route]) -> None:
    """Give an application routes; `mount` puts them into its router."""
    if ROUTES not in app:
        app[ROUTES] = []
    app[ROUTES].extend(route for group in routes for route in group)


def mount(app: web.Application, prefix: str = "") -> Table:
    """Put an application's routes into its router, and again below `prefix`; return the access of each.

    Raises ValueError for a route that came into the router in another way, or that asks for nothing.
    """
    table: Table = {}
    for route in app.get(ROUTES, []):
        if not route.access:
            raise ValueError(f"{route.method} {route.path} names no access.")
        for path in dict.fromkeys((route.path, prefix + route.path)):
            mounted = app.router.add_route(route.method, path, route.handler)
            table[mounted] = Mounted(route.access, route.path)
    for found in app.router.routes():
        if found not in table:
            where = found.resource.canonical if found.resource is not None else found
            raise ValueError(f"{found.method} {where} names no access: add it with access.route.add.")
    return table
