"""The web page, which `scripts/web` builds from `web/` at the top of the repository, and its headers."""

from __future__ import annotations

import gzip
import hashlib
import itertools
from functools import cache
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from safelight.access import route
from safelight.access.caller import Access

_STATIC = Path(__file__).with_name("static")
_WORKER = "service-worker.js"
"""It is beside the page and not below `/web/`, because a service worker may only serve addresses below its own."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types service-worker"
    ),
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, browsers send a form with `Origin: null`; over plain HTTP nothing else says where it comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Forbid inline code, other hosts, and strings that become code, except the address of the service worker."""


class _File(msgspec.Struct, frozen=True):
    """A built file, ready to send."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str


def routes() -> list[route.Route]:
    """Return the page's routes: `/`, and its files below `/web/`; none if the page was not built."""
    if not (_STATIC / "index.html").is_file():
        return []
    beside = {"index.html", _WORKER}
    names = sorted(path.name for path in _STATIC.iterdir() if path.suffix in _TYPES and path.name not in beside)
    files = (route.get(f"/web/{name}", _file(name), Access.PAGE) for name in names)
    shell = [*route.get("/", _file("index.html"), Access.PAGE), *route.get(f"/{_WORKER}", _file(_WORKER), Access.PAGE)]
    return [*shell, *itertools.chain.from_iterable(files)]


def _file(name: str) -> Handler:
    async def send(request: web.Request) -> web.Response:
        return _send(request, _read(name))

    return send


def _send(request: web.Request, file: _File) -> web.Response:
    # Files with their version in the address never change; the page itself is revalidated each time.
    lasting = "v" in request.query
    headers = {
        **HEADERS,
        "ETag": file.etag,
        "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("If-None-Match") == file.etag:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = file.media_type
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=file.packed, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=file.body, headers=headers)


@cache
def _read(name: str) -> _File:
    body = (_STATIC / name).read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return _File(body, gzip.compress(body, 9, mtime=0), _TYPES[Path(name).suffix], etag)
