"""Sessions: a browser exchanges a key, or a one-time link, for a cookie."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from safelight import http
from safelight.access.caller import CALLER, Access, Caller, is_admitted
from safelight.client.accounts import AccountClient
from safelight.errors import Code, Error
from safelight.master.access import cookies
from safelight.master.access.audit import Audit
from safelight.master.access.fresh import Fresh
from safelight.master.access.keys import KEY, SECRET, Keys, flags, scopes_of
from safelight.master.access.quotas import Quotas
from safelight.master.access.tenant import is_operator
from safelight.master.api.endpoint import JSON, Endpoint
from safelight.wire import accounts
from safelight.wire.accounts import ApiKey, Link, Scope, Session, SignedIn, Ticket

_COOKIE = "safelight_session"
_SIGN_IN = "sign_in"
_SIGN_IN_LINK_LASTS = 3600.0
_SIGN_IN_BYTES = 16 << 10
"""The largest body of a sign-in. Strangers send it, so it is less than what callers with a key may send."""
_SAFE = ("GET", "HEAD")


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The credential to sign in with: an API key, or the ticket of a sign-in link."""

    key: Annotated[str, Meta(max_length=512)] | None = None
    ticket: Annotated[str, Meta(max_length=512)] | None = None


class Sessions:
    """The handlers of sessions, and the authenticator of their cookie."""

    def __init__(
        self,
        client: AccountClient,
        keys: Keys,
        quotas: Quotas,
        audit: Audit,
        *,
        lifetime: float,
    ) -> None:
        """Let sessions last `lifetime` seconds."""
        self._accounts = client
        self._keys = keys
        self._quotas = quotas
        self._audit = audit
        self._lifetime = lifetime
        self.providers: list[str] = []
        """Names of other ways to sign in, each at a path below /sign-in/; the page shows a button for each."""
        self._sessions: Fresh[Session | None] = Fresh(self._read)

    async def _read(self, id: str) -> Session | None:
        try:
            return await self._accounts.session(id)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return None

    async def authenticate(self, request: web.Request) -> Caller | None:
        """Return the caller for a session's cookie, or None if there is none or it has ended."""
        cookie = cookies.read(request, _COOKIE)
        if cookie is None or request.app[http.SERVICE].gate.origins.is_named(request):
            return None  # pages of allowed origins must use a key, not a cookie
        session = await self._sessions.get(accounts.digest(cookie))
        if session is None or session.expires < time.time():
            return None
        if session.key:
            key = await self._keys.valid(session.key)
            if key is None or (session.secret and not key.accepts(session.secret, time.time())):
                return None
        if request.method not in _SAFE and not {"Sec-Fetch-Site", hdrs.ORIGIN} & request.headers.keys():
            # The browser says which page sent the request, and the gate has checked it.
            raise Error(Code.FORBIDDEN, "A session's cookie changes things only from the web page; use an API key.")
        await self._quotas.request(session.tenant, counted=is_admitted(request))
        request[KEY], request[SECRET] = session.key, session.secret
        return Caller(
            name=session.name or session.key, tenant=session.tenant, scopes=flags(session.scopes), via="session"
        )

    async def get(self, request: web.Request) -> web.Response:
        """`GET /session`."""
        gate = request.app[http.SERVICE].gate
        needed = not (gate.policy.local or gate.policy.open)
        try:
            caller = await gate.identify(request)
        except Error as error:
            if error.code not in (Code.UNAUTHENTICATED, Code.FORBIDDEN):
                raise
            caller = None
        if caller is None:
            return _private(SignedIn(signed_in=False, needed=needed, providers=self.providers))
        return _private(
            SignedIn(
                signed_in=True,
                needed=needed,
                name=caller.name,
                tenant=caller.tenant,
                scopes=scopes_of(caller.scopes),
                via=caller.via,
                key=request.get(KEY, ""),
                operator=is_operator(caller),
                providers=self.providers,
            )
        )

    async def create(self, request: web.Request) -> web.Response:
        """`POST /session`."""
        asked = await http.read_json(request, SignIn, _SIGN_IN_BYTES)
        if (asked.key is None) == (asked.ticket is None):
            raise Error(Code.INVALID_REQUEST, "Sign in with an API key, or with the ticket of a sign-in link.")
        async with self.noting_refusals(request, "key" if asked.ticket is None else "ticket", _shown_id(asked.key)):
            source = await (self._of_key(asked.key) if asked.key is not None else self._redeemed(asked.ticket or ""))
        parsed = accounts.parse_token((asked.key or "").strip())
        return await self.start(request, source, secret="" if parsed is None else accounts.digest(parsed[1]))

    @asynccontextmanager
    async def noting_refusals(self, request: web.Request, via: str, subject: str = "") -> AsyncIterator[None]:
        """Record a sign-in that is refused within the context in the audit log."""
        try:
            yield
        except Error as error:
            if error.code in (Code.UNAUTHENTICATED, Code.FORBIDDEN):
                await self._audit.refused(request, error, via=via, subject=subject)
            raise

    async def _of_key(self, token: str) -> ApiKey:
        source = await self._keys.of_token(token.strip())
        if source is None:
            raise Error(Code.UNAUTHENTICATED, "This key is not known here. It may be revoked, or another system's.")
        return source

    async def _redeemed(self, ticket: str) -> Ticket:
        try:
            return await self._accounts.redeem(accounts.digest(ticket), _SIGN_IN)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            raise Error(Code.UNAUTHENTICATED, error.detail) from None

    async def start(
        self,
        request: web.Request,
        source: ApiKey | Ticket,
        response: web.StreamResponse | None = None,
        *,
        secret: str = "",
    ) -> web.Response:
        """Start a session for a key (and the digest of its secret) or a ticket, and answer with its cookie."""
        now = time.time()
        cookie = accounts.new_secret()
        key = source.id if isinstance(source, ApiKey) else ""
        session = Session(
            id=accounts.digest(cookie),
            tenant=source.tenant,
            name=source.name or key,
            scopes=source.scopes,
            key=key,
            secret=secret,
            created=now,
            expires=min(now + self._lifetime, (source.expires if isinstance(source, ApiKey) else None) or now + 1e10),
        )
        request[CALLER] = Caller(name=session.name, tenant=session.tenant, scopes=flags(session.scopes), via="session")
        async with self._audit.record(request, "sessions.start", session.name, tenant=session.tenant):
            await self._accounts.create_session(session)
        answer = response or _private(await self._shown(request, session))
        cookies.give(request, answer, _COOKIE, cookie, seconds=int(session.expires - now))
        return answer  # type: ignore[return-value]

    async def _shown(self, request: web.Request, session: Session) -> SignedIn:
        caller = http.caller(request)
        return SignedIn(
            signed_in=True,
            needed=True,
            name=session.name,
            tenant=session.tenant,
            scopes=scopes_of(caller.scopes),
            via="session",
            key=session.key,
            operator=is_operator(caller),
            providers=self.providers,
        )

    async def end(self, request: web.Request) -> web.Response:
        """`DELETE /session`."""
        for cookie in cookies.every(request, _COOKIE):
            id = accounts.digest(cookie)  # noqa: A001 - a session's id is called id
            await self._accounts.end_session(id)
            self._sessions.forget(id)
        # Let the browser forget its cached photos.
        answer = web.Response(status=204, headers={"Clear-Site-Data": '"cache"'})
        cookies.take(request, answer, _COOKIE)
        return answer

    async def invite(self, request: web.Request) -> web.Response:
        """`POST /sign-in-links`: for an administrator of the system who has no key yet."""
        secret = accounts.new_secret()
        ticket = Ticket(
            id=accounts.digest(secret),
            kind=_SIGN_IN,
            name="sign-in link",
            scopes=[Scope.ADMINISTER],
            expires=time.time() + _SIGN_IN_LINK_LASTS,
        )
        async with self._audit.record(request, "sign_in_links.create"):
            await self._accounts.create_ticket(ticket)
        # A fragment stays in the browser: no server, proxy or log sees the ticket in an address.
        url = http.absolute(request, f"/#/sign-in/{secret}")
        return _private(Link(url=url, expires=ticket.expires))

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint(
                method="GET", path="/session", handler=self.get, access=Access.PAGE, tag="access",
                summary="Say who the caller is", answer={JSON: SignedIn}, errors=(Code.UNAVAILABLE,),
            ),
            Endpoint(
                method="POST", path="/session", handler=self.create, access=Access.PAGE, tag="access",
                summary="Sign in: exchange a key or the ticket of a sign-in link for a session's cookie",
                body={JSON: SignIn}, answer={JSON: SignedIn},
                errors=(Code.INVALID_REQUEST, Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.UNAVAILABLE),
            ),
            Endpoint(
                method="DELETE", path="/session", handler=self.end, access=Access.PAGE, tag="access",
                summary="Sign out", status=204, errors=(Code.UNAVAILABLE,),
            ),
            Endpoint(
                method="POST", path="/sign-in-links", handler=self.invite, access=Access.CLUSTER, tag="access",
                summary="Make a link that signs an administrator in once", answer={JSON: Link},
                errors=(Code.UNAVAILABLE,),
            ),
        ]  # fmt: skip


def _shown_id(key: str | None) -> str:
    """Return the part of a key that is not secret, if the text has the form of a key."""
    found = accounts.parse_token((key or "").strip())
    return found[0] if found else ""


def _private(value: object) -> web.Response:
    return http.json_response(value, headers={"Cache-Control": "no-store"})
