"""Name, set and read the cookies of sign-in.

A page on a sibling host can set cookies for the whole domain, and so put a session of its own into a visitor's browser.
Over TLS the names therefore have a prefix that browsers reserve for cookies set by this host (`__Host-`) or, below a
path, for cookies set over TLS (`__Secure-`). If there are two cookies of one name, neither is accepted.
"""

from __future__ import annotations

from typing import Literal

from aiohttp import hdrs, web

from safelight import http
from safelight.errors import Code, Error


def read(request: web.Request, name: str) -> str | None:
    """Return the value of a cookie, or None. Raises UNAUTHENTICATED if there are several."""
    values = every(request, name)
    if len(values) > 1:
        sentence = "The browser sends two cookies of sign-in, one of which another site has set. Delete its cookies."
        raise Error(Code.UNAUTHENTICATED, sentence)
    return next(iter(values), None)


def every(request: web.Request, name: str) -> set[str]:
    """Return the values of all cookies of a name, without those that are not ASCII, since `give` sets no such ones."""
    sent = _name(request, name)
    pairs = (pair.partition("=") for value in request.headers.getall(hdrs.COOKIE, ()) for pair in value.split(";"))
    return {value.strip().strip('"') for given, _, value in pairs if given.strip() == sent and value.isascii()}


def give(
    request: web.Request,
    answer: web.StreamResponse,
    name: str,
    value: str,
    *,
    seconds: int,
    path: str = "/",
    samesite: Literal["Strict", "Lax"] = "Strict",
) -> None:
    """Set a cookie for a path of this service."""
    answer.set_cookie(
        _name(request, name),
        value,
        max_age=seconds,
        path=_path(request, path),
        httponly=True,
        samesite=samesite,
        secure=_is_secure(request),
    )


def take(request: web.Request, answer: web.StreamResponse, name: str, *, path: str = "/") -> None:
    """Delete a cookie that was set for a path."""
    answer.del_cookie(_name(request, name), path=_path(request, path), secure=_is_secure(request))


def _name(request: web.Request, name: str) -> str:
    if not _is_secure(request):
        return name
    return f"__Secure-{name}" if http.location(request, "") else f"__Host-{name}"


def _path(request: web.Request, path: str) -> str:
    """Return the path of a cookie; browsers accept `__Host-` cookies only for the whole host."""
    prefix = http.location(request, "")
    return prefix + path if prefix or not _is_secure(request) else "/"


def _is_secure(request: web.Request) -> bool:
    """Return whether browsers reach this service over TLS."""
    public = request.app[http.SERVICE].gate.policy.public
    return public.scheme == "https" if public is not None else request.secure
