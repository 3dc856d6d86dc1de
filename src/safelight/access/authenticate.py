"""The gate: the one place that authenticates requests and decides whether they may pass.

The checks come in this order: host name and origin of the request (`origin`), the cluster key, the credentials that a
service adds (API keys, sessions, signed links, a proxy's user), the networks of the classic protocol, this machine,
`--open`. A request without a credential is UNAUTHENTICATED (401); a known caller without the access that the route
needs is FORBIDDEN (403).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from safelight.access.caller import EVERYBODY, LOCAL, NOBODY, Access, Caller, holds
from safelight.access.forwarded import client_address
from safelight.access.origin import Origins
from safelight.access.policy import Policy
from safelight.errors import Code, Error

Authenticator = Callable[[web.Request], Awaitable[Caller | None]]
"""Returns who sent a request, or None if it has no credential of this kind. Raises UNAUTHENTICATED for a wrong one."""

_CLUSTER = Caller(name="cluster", scopes=LOCAL | Access.SHUTDOWN, via="cluster")
_SHUTDOWN = Caller(name="shutdown", scopes=Access.SHUTDOWN, via="shutdown")
_LOOPBACK = Caller(name="this machine", scopes=LOCAL, via="loopback")
_OPEN = Caller(name="anyone", scopes=LOCAL, via="open")


class Gate:
    """Lets requests in, or not."""

    def __init__(self, policy: Policy, *, shutdown_token: str | None = None) -> None:
        self.policy = policy
        self.origins = Origins(policy)
        self.authenticators: list[Authenticator] = []
        """The authenticators that a service adds, in the order in which they are tried."""
        self._shutdown_token = None if shutdown_token is None else shutdown_token.encode()
        self._classic = Caller(name="classic", tenant=policy.classic_tenant, scopes=Access.CLASSIC, via="classic")
        self._everybody = _LOOPBACK if policy.local else _OPEN if policy.open else None

    def recognise(self, request: web.Request, access: Access) -> Caller | None:
        """Admit requests with the cluster key or to open routes; return None if `admit` must decide.

        Raises MISDIRECTED or FORBIDDEN for a wrong host name or origin.
        """
        self.origins.check(request, access)
        if holds(access, EVERYBODY):
            return NOBODY
        token = bearer(request)
        caller = None if token is None else self._service(token)
        return caller if caller is not None and holds(caller.scopes, access) else None

    def known(self, request: web.Request) -> Caller:
        """Return who sent a request, or NOBODY if only another service could tell."""
        token = bearer(request)
        caller = self._without_credential(request) if token is None else self._service(token)
        return NOBODY if caller is None else caller

    async def admit(self, request: web.Request, access: Access) -> Caller:
        """Return who sent a request that `recognise` did not admit. Raises FORBIDDEN, UNAUTHENTICATED."""
        caller = await self.identify(request)
        if caller is None:
            raise Error(Code.UNAUTHENTICATED, _what_to_show(access))
        if not holds(caller.scopes, access):
            raise Error(Code.FORBIDDEN, _what_is_missing(caller, access))
        return caller

    async def identify(self, request: web.Request) -> Caller | None:
        """Return who sent a request, or None if unknown. Raises UNAUTHENTICATED for a wrong credential."""
        token = bearer(request)
        if token is not None and (caller := self._service(token)) is not None:
            return caller
        for authenticator in self.authenticators:
            if (caller := await authenticator(request)) is not None:
                return caller
        if token is not None:
            raise Error(
                Code.UNAUTHENTICATED, "This key is unknown. It may have been revoked, or belong to another system."
            )
        return self._without_credential(request)

    def _without_credential(self, request: web.Request) -> Caller | None:
        """Return the caller of a request that only its origin admits, or None if it needs a credential."""
        if self.origins.is_named(request) and not self.policy.open:
            return None  # the page is no program on this machine, nor one of the network
        if self.policy.classic and client_address(request, self.policy.proxies) in self.policy.classic:
            # A network that may use the classic protocol must not get less than everybody else.
            return self._everybody or self._classic
        return self._everybody

    def _service(self, token: str) -> Caller | None:
        if self.policy.cluster is not None and self.policy.cluster.matches(token):
            return _CLUSTER
        given = token.encode(errors="replace")
        if self._shutdown_token is not None and hmac.compare_digest(given, self._shutdown_token):
            return _SHUTDOWN
        return None


def bearer(request: web.Request) -> str | None:
    """Return the token of `Authorization: Bearer`, or None."""
    value = request.headers.get(hdrs.AUTHORIZATION)
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _what_to_show(access: Access) -> str:
    if access & (Access.CLUSTER | Access.SHUTDOWN) and not access & Access.READ:
        return "Only services of this system may do this: send the cluster key (--cluster-key-file)."
    if access & Access.CLASSIC and not access & Access.UPLOAD:
        return "Without a key, only the networks in --classic-networks may use the classic protocol."
    return "Send an API key (Authorization: Bearer KEY), or sign in."


def _what_is_missing(caller: Caller, access: Access) -> str:
    # Whoever has a key is helped by its scopes; the other ways in need none.
    scopes = access & (Access.UPLOAD | Access.READ | Access.OPERATE | Access.ADMINISTER)
    wanted = " or ".join(flag.name.lower() for flag in Access if flag & (scopes or access) and flag.name)
    if not scopes:
        return f"{caller.name} may not do this: it needs {wanted}."
    return f"{caller.name} may not do this: it needs the scope {wanted}. Ask an administrator for a key that has it."
