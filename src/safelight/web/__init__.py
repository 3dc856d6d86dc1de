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
_VERSION = 12
"""How many digits of a file's digest `web/build.js` takes for its version."""
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
    digest: str


def routes() -> list[route.Route]:
    """Return the page's routes: `/`, and its files below `/web/`; none if the page was not built."""
    if not (_STATIC / "index.html").is_file():
        return []
    beside = {"index.html", _WORKER}
    names = sorted(path.name for path in _STATIC.iterdir() if path.suffix in _TYPES and path.name not in beside)
    files = (route.get(f"/web/{name}", _file(_STATIC / name), Access.PAGE) for name in names)
    shell = [
        *route.get("/", _file(_STATIC / "index.html"), Access.PAGE),
        *route.get(f"/{_WORKER}", _file(_STATIC / _WORKER), Access.PAGE),
    ]
    return [*shell, *itertools.chain.from_iterable(files)]


def _file(path: Path) -> Handler:
    async def send(request: web.Request) -> web.Response:
        return _send(request, _read(path))

    return send


def _send(request: web.Request, file: _File) -> web.Response:
    # A file under an address with its own version never changes. During an upgrade, a page of another version gets this
    # file too, because it works better with this script than with none, but it asks again the next time.
    lasting = request.query.get("v") == file.digest[:_VERSION]
    etag = f'"{file.digest[:16]}"'
    headers = {
        **HEADERS,
        "ETag": etag,
        "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = file.media_type
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=file.packed, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=file.body, headers=headers)


@cache
def _read(path: Path) -> _File:
    body = path.read_bytes()
    return _File(body, gzip.compress(body, 9, mtime=0), _TYPES[path.suffix], hashlib.sha256(body).hexdigest())
