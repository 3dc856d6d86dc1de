"""Reach services through the proxy that HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name, unless NO_PROXY leaves it out.

curl and pip honour the same variables. Only the command uses this: services find each other without a proxy. aiohttp's
own support would also read ~/.netrc, and would use a proxy for loopback addresses, where no proxy finds this machine.
"""

from __future__ import annotations

from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from safelight.access.networks import Networks, is_loopback
from safelight.errors import Code, Error


class ProxiedConnector(aiohttp.TCPConnector):
    """Opens connections, through a proxy where the environment names one for a URL."""

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Any:
        """Open the connection of a request. Raises INVALID_REQUEST for a proxy that cannot be used."""
        if (proxy := proxy_of(req.url)) is not None:
            req.proxy = proxy.with_user(None)
            if proxy.user:
                shown = aiohttp.encode_basic_auth(proxy.user, proxy.password or "")
                req.proxy_headers = CIMultiDict({aiohttp.hdrs.AUTHORIZATION: shown})  # aiohttp sends it to the proxy
        return await super().connect(req, *args, **options)


def proxy_of(url: URL) -> URL | None:
    """Return the proxy for a URL, if the environment names one. Raises INVALID_REQUEST."""
    found = getproxies()
    given = found.get(url.scheme) or found.get("all")
    host = url.host or ""
    if not given or is_loopback(host) or _is_left_out(host, url.port, found.get("no", "")):
        return None
    try:
        proxy = URL(given if "://" in given else f"http://{given}")
        usable = proxy.scheme in ("http", "https") and bool(proxy.host)
    except ValueError:
        usable = False
    if not usable:
        detail = (
            f"The environment names a proxy for {url.scheme}:// (such as {url.scheme.upper()}_PROXY) that is no "
            f"http://HOST:PORT. Name such a proxy, or leave {host} out with NO_PROXY."
        )
        raise Error(Code.INVALID_REQUEST, detail)
    return proxy


def _is_left_out(host: str, port: int | None, names: str) -> bool:
    """Return whether NO_PROXY leaves out a host: by its name, a domain of it, its address, or a network."""
    if proxy_bypass(f"{host}:{port}"):
        return True
    for name in names.split(","):
        try:
            if host in Networks.parse(name):
                return True
        except ValueError:  # a name, or a network whose address has bits beyond its mask
            continue
    return False
