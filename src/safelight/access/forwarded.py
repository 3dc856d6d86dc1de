"""Find the client of a request behind trusted proxies."""

from __future__ import annotations

from aiohttp import web

from safelight.access.networks import Networks, parsed

_FOR = "X-Forwarded-For"


def client_address(request: web.Request, proxies: Networks) -> str:
    """Return the address of the client: the peer's, or the one that trusted proxies report.

    Each proxy appends the address that called it, so the last address that is not a proxy's is genuine, and earlier
    ones may be forged.
    """
    peer = request.remote or ""
    if not proxies or peer not in proxies:
        return peer
    chain = [part.strip() for value in request.headers.getall(_FOR, ()) for part in value.split(",")]
    for address in reversed(chain):
        found = parsed(_without_port(address))
        if found is None:
            break
        if str(found) not in proxies:
            return str(found)
        peer = str(found)
    return peer


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
