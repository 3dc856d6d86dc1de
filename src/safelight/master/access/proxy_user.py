"""Users whom a named proxy vouches for: it signs them in, and passes their name on in a header."""

from __future__ import annotations

from aiohttp import web

from safelight import http
from safelight.access.caller import Access, Caller
from safelight.access.networks import Networks
from safelight.errors import Code, Error
from safelight.master.access.quotas import Quotas

_LONGEST = 200


class ProxyUsers:
    """The authenticator. Only a request that a named proxy has sent may carry the header."""

    def __init__(self, quotas: Quotas, proxies: Networks, *, header: str, tenant: str, scopes: Access) -> None:
        """Take the user's name from `header`; all such users belong to `tenant` and hold `scopes`."""
        self._quotas = quotas
        self._proxies = proxies
        self._header = header
        self._tenant = tenant
        self._scopes = scopes

    async def authenticate(self, request: web.Request) -> Caller | None:
        """Return the caller that a proxy names; None where it names nobody, or the request comes from elsewhere."""
        names = request.headers.getall(self._header, [])
        if not names or (request.remote or "") not in self._proxies:
            return None
        if request.app[http.SERVICE].gate.origins.is_named(request):
            return None  # a browser has added what the proxy knows its user by
        name = names[0].strip()
        if len(names) > 1 or not 0 < len(name) <= _LONGEST or not name.isprintable():
            raise Error(Code.UNAUTHENTICATED, f"The proxy must send one {self._header} with the user's name.")
        await self._quotas.request(self._tenant)
        return Caller(name=name, tenant=self._tenant, scopes=self._scopes, via="proxy")
