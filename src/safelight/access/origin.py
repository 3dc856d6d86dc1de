"""Check the host name and the origin of requests.

A browser sends requests for any page that it shows, with the user's cookies and from the user's network. So a request
must name this service, which stops DNS rebinding, and requests that a page of another site caused are refused, both
reads and writes.
"""

from __future__ import annotations

from functools import lru_cache

from aiohttp import hdrs, web
from multidict import istr

from safelight.access.caller import Access
from safelight.access.networks import is_loopback, parsed
from safelight.access.policy import Policy, split_host
from safelight.errors import Code, Error

_SITE, _MODE, _DEST = istr("Sec-Fetch-Site"), istr("Sec-Fetch-Mode"), istr("Sec-Fetch-Dest")
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Range, If-Range, If-None-Match, If-Match, Last-Event-ID, "
    "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Upload-Checksum, "
    "Upload-Concat, Upload-Defer-Length, X-HTTP-Method-Override, X-Request-ID, X-Requested-With, Safelight-Tenant, "
    "traceparent, tracestate"
)
"""The headers that pages of named origins may send, also those of tus that are refused: without them here, the browser
would not send the request, and the page would not learn why.
"""
_RESPONSE_HEADERS = (
    "Location, ETag, Content-Disposition, Content-Range, Accept-Ranges, Retry-After, Allow, Safelight-Task, "
    "Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Upload-Offset, Upload-Length, "
    "Upload-Metadata, Upload-Expires"
)
_REMEMBERED = "86400"
"""Seconds for which a browser may cache the answer to a preflight."""


class Origins:
    """The checks of the host name, of `Origin` and of `Sec-Fetch-Site`."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._public = str(policy.public.origin()) if policy.public is not None else None
        self._known = lru_cache(maxsize=1024)(self._answers_to)
        self.named = bool(policy.origins)
        """Whether the pages of some other origins may read answers."""

    def check(self, request: web.Request, access: Access) -> None:
        """Raise MISDIRECTED for an unknown host name, FORBIDDEN for a request of a foreign page."""
        headers = request.headers
        host = headers.get(hdrs.HOST)
        if host is not None and not self._known(host):
            raise _misdirected(host)
        if not request.raw_path.startswith("/"):
            # The request line has a whole address, whose host counts instead of Host (RFC 9112, 3.2.2).
            target = request.url.host_subcomponent or ""
            if not self._known(target):
                raise _misdirected(target)
        site, origin = headers.get(_SITE), headers.get(hdrs.ORIGIN)
        if site is None and origin is None:
            return
        if origin is not None and origin in self._policy.origins:
            return
        if site in ("same-origin", "none"):
            return
        if site is None and origin in (f"http://{host}", f"https://{host}", self._public):
            return
        if self._is_link(request, access, origin):
            return
        raise Error(Code.FORBIDDEN, "Pages of other sites may not call this service, unless --cors-origins names them.")

    def is_named(self, request: web.Request) -> bool:
        """Return whether a page of an allowed origin sent a request, so that cookies in it must not count.

        The browser adds cookies if the origin belongs to our site: app.example.org and photos.example.org.
        """
        return request.headers.get(hdrs.ORIGIN) in self._policy.origins and request.headers.get(_SITE) != "same-origin"

    def _is_link(self, request: web.Request, access: Access, origin: str | None) -> bool:
        """Return whether a person followed a link from another site to our page; that site does not see the answer."""
        headers = request.headers
        return (
            origin is None
            and bool(access & (Access.PAGE | Access.LINK))
            and request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
            and headers.get(_MODE) == "navigate"
            and headers.get(_DEST) == "document"
        )

    def preflight(self, request: web.Request) -> web.Response | None:
        """Answer a preflight request, or return None if the request is not one."""
        if request.method != hdrs.METH_OPTIONS:
            return None
        headers = request.headers
        if headers.get(hdrs.ORIGIN) not in self._policy.origins or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in headers:
            return None
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: _REMEMBERED,
            },
        )

    def allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page of an allowed origin read a response. It may not send cookies."""
        if not self.named:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._policy.origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _RESPONSE_HEADERS
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"

    def _answers_to(self, host: str) -> bool:
        name = split_host(host)
        if name in self._policy.hosts or is_loopback(name):
            return True
        # An IP address cannot be rebound; one that is not this machine's own comes from a forwarded port.
        return not self._policy.loopback_only and parsed(name) is not None


def _misdirected(host: str) -> Error:
    allow = "To allow this name, use --allowed-hosts or --public-url."
    return Error(Code.MISDIRECTED, f"This service is not addressed as {_shown(host)}. {allow}")


def _shown(host: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in host[:100])
