"""Send a browser to the identity provider, and start a session for it when it comes back.

The state, the nonce and the PKCE verifier of a sign-in are in a cookie of the browser that began it. Unfinished
sign-ins therefore cost nothing here, and any master can finish one. A callback in a browser that did not begin the
sign-in is refused, because its cookie does not have that state.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from safelight import http
from safelight.access.caller import Access
from safelight.access.cluster_key import is_open_to_others
from safelight.access.route import Route
from safelight.errors import Code, Error
from safelight.master.access import cookies
from safelight.master.access.oidc.provider import Provider
from safelight.master.access.oidc.users import Users, name_of
from safelight.master.access.quotas import Quotas
from safelight.master.access.sessions import Sessions
from safelight.untrusted.text import printable
from safelight.wire import accounts
from safelight.wire.accounts import Ticket

log = logging.getLogger(__name__)

_COOKIE = "safelight_sign_in"
_BACK = "/oidc/callback"
_LASTS = 600
"""Seconds that a person may spend at the provider."""
_AT_ONCE = 16
"""The most concurrent requests to the provider."""
_LONGEST_NAME = 100
_LONGEST_SECRET = 4096

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Begun(msgspec.Struct, frozen=True, array_like=True):
    """The state of a sign-in, which the browser keeps in a cookie while it is at the provider."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def of(cls, request: web.Request) -> _Begun | None:
        parts = (cookies.read(request, _COOKIE) or "").split(".")
        return cls(*parts) if len(parts) == 3 and all(parts) else None


class _Callback(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters with which the provider sends the browser back."""

    state: Annotated[str, Meta(max_length=512)] = ""
    code: Annotated[str, Meta(max_length=4096)] = ""
    error: str | None = None
    error_description: str | None = None
    iss: str | None = None


class OidcSignIn:
    """The handlers. They show failures as pages, because people see them."""

    def __init__(self, provider: Provider, users: Users, sessions: Sessions, quotas: Quotas) -> None:
        self.provider = provider
        self._users = users
        self._sessions = sessions
        self._quotas = quotas
        self._asking = asyncio.Semaphore(_AT_ONCE)
        sessions.providers.append(provider.name)

    @property
    def tenants(self) -> set[str]:
        """The tenants of those who may sign in."""
        return {rule.tenant for rule in self._users.users}

    def routes(self) -> list[Route]:
        """Return the routes, which are not part of the API. They refuse HEAD, because a code works only once."""
        return [
            Route(method=hdrs.METH_GET, path=path, handler=_shown(handler), access=Access.PAGE)
            for path, handler in (("/sign-in/{provider}", self.begin), (_BACK, self.finish))
        ]

    async def begin(self, request: web.Request) -> web.Response:
        """`GET /sign-in/{provider}`: send the browser to the provider."""
        if request.match_info["provider"] != self.provider.name:
            raise Error(Code.NOT_FOUND, "There is no identity provider of this name here.")
        begun = _Begun(*(accounts.new_secret() for _ in range(3)))
        async with self._place():
            address = await self.provider.address(
                redirect=http.absolute(request, _BACK), state=begun.state, nonce=begun.nonce, verifier=begun.verifier
            )
        answer = _redirect(str(address))
        # Lax: the provider is another site, and the browser comes back from there.
        kept = ".".join(msgspec.structs.astuple(begun))
        cookies.give(request, answer, _COOKIE, kept, seconds=_LASTS, path=_BACK, samesite="Lax")
        return answer

    async def finish(self, request: web.Request) -> web.StreamResponse:
        """`GET /oidc/callback`: start a session for the user whom the provider has signed in."""
        async with self._sessions.noting_refusals(request, "oidc"):
            ticket = await self._signed_in(request)
        answer = _redirect(http.absolute(request, "/"))
        cookies.take(request, answer, _COOKIE, path=_BACK)
        return await self._sessions.start(request, ticket, answer)

    async def _signed_in(self, request: web.Request) -> Ticket:
        given, begun = http.query(request, _Callback), _Begun.of(request)
        if begun is None or not hmac.compare_digest(given.state.encode(errors="replace"), begun.state.encode()):
            sentence = "This sign-in was not begun in this browser, or too long ago. Open {} and sign in again."
            raise Error(Code.UNAUTHENTICATED, sentence.format(http.absolute(request, "/")))
        if given.iss not in (None, self.provider.issuer):
            raise Error(Code.UNAUTHENTICATED, "Another identity provider answered than was asked. Sign in again.")
        if given.error is not None or not given.code:
            raise Error(Code.UNAUTHENTICATED, self.provider.refusal(given.error or "no code", given.error_description))
        async with self._place():
            claims = await self.provider.claims(
                given.code, redirect=http.absolute(request, _BACK), nonce=begun.nonce, verifier=begun.verifier
            )
        return await self._user(claims)

    async def _user(self, claims: dict[str, object]) -> Ticket:
        """Return the ticket for a user's session. Raises FORBIDDEN for a user whom no rule matches."""
        name, rule = printable(name_of(claims), _LONGEST_NAME), self._users.rule(claims)
        if rule is None:
            log.warning("A user of %s may not sign in", self.provider.name, extra={"sub": claims["sub"], "user": name})
            sentence = f"{self.provider.name} knows you as {name}, who may not sign in here. Ask an administrator."
            raise Error(Code.FORBIDDEN, sentence)
        await self._quotas.request(rule.tenant)
        log.info("A user of %s signs in", self.provider.name, extra={"sub": claims["sub"], "user": name})
        return Ticket(
            id=accounts.digest(accounts.new_secret()),
            kind="oidc",
            tenant=rule.tenant,
            name=name,
            scopes=sorted(set(rule.scopes)),
            expires=time.time(),
        )

    def _place(self) -> asyncio.Semaphore:
        if self._asking.locked():
            raise Error(Code.TOO_MANY_REQUESTS, "Many people sign in at this moment. Try again in a few seconds.")
        return self._asking


def configured(
    issuer: str, client_id: str, sessions: Sessions, quotas: Quotas, *, secret: Path | None, users: Path
) -> OidcSignIn:
    """Make the sign-in that the settings describe. Raises ValueError with a sentence for the operator."""
    try:
        provider = Provider(issuer, client_id, None if secret is None else _secret(secret))
    except ValueError as error:
        raise ValueError(f"--oidc-issuer: {error}") from None
    except Error as error:
        raise ValueError(f"--oidc-client-secret-file: {error.detail}") from None
    try:
        return OidcSignIn(provider, Users.load(users), sessions, quotas)
    except ValueError as error:
        raise ValueError(f"--oidc-users: {error}") from None


def _secret(path: Path) -> str:
    """Read the client's secret. Raises `Error` if other users of this machine can read the file too."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        others = is_open_to_others(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Error(Code.INVALID_REQUEST, f"{path} cannot be read: {reason}") from None
    if others:
        raise Error(Code.INVALID_REQUEST, f"{path} can be read by others: chmod 600 it")
    if not 0 < len(text) <= _LONGEST_SECRET:
        raise Error(Code.INVALID_REQUEST, f"{path} must hold a secret of at most {_LONGEST_SECRET} characters")
    return text


def _redirect(address: str) -> web.Response:
    return web.Response(status=303, headers={hdrs.LOCATION: address, hdrs.CACHE_CONTROL: "no-store"})


def _shown(handler: Handler) -> Handler:
    """Answer an error with a page for people."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Error as error:
            log.warning("A sign-in failed: %s", error.detail)
            back = html.escape(http.absolute(request, "/"))
            text = (
                '<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in</title>'
                f'<p role="alert">{html.escape(error.detail)}</p><p><a href="{back}">Back to the page</a></p></html>'
            )
            headers = {hdrs.CACHE_CONTROL: "no-store"}
            return web.Response(text=text, status=error.status, content_type="text/html", headers=headers)

    return handle
