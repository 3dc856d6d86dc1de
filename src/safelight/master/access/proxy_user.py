"""Authenticate users whom a trusted proxy signs in, by the header with their name."""

from __future__ import annotations

from aiohttp import web

from safelight import http
from safelight.access.caller import Access, Caller, is_admitted
from safelight.access.networks import Networks
from safelight.errors import Code, Error
from safelight.master.access.quotas import Quotas

_LONGEST = 200


class ProxyUsers:
    """The authenticator. The header counts only in requests of a trusted proxy."""

    def __init__(self, quotas: Quotas, proxies: Networks, *, header: str, tenant: str, scopes: Access) -> None:
        """Take the user's name from `header`; all such users belong to `tenant` and hold `scopes`."""
        self._quotas = quotas
        self._proxies = proxies
        self._header = header
        self._tenant = tenant
        self._scopes = scopes

    async def authenticate(self, request: web.Request) -> Caller | None:
        """Return the caller that a proxy names, or None if it names nobody or the request did not come from a proxy."""
        names = request.headers.getall(self._header, [])
        if not names or (request.remote or "") not in self._proxies:
            return None
        if request.app[http.SERVICE].gate.origins.is_named(request):
            return None  # the browser added the cookie by which the proxy knows its user
        name = names[0].strip()
        if len(names) > 1 or not 0 < len(name) <= _LONGEST or not name.isprintable():
            raise Error(Code.UNAUTHENTICATED, f"The proxy must send one {self._header} with the user's name.")
        await self._quotas.request(self._tenant, counted=is_admitted(request))
        return Caller(name=name, tenant=self._tenant, scopes=self._scopes, via="proxy")
