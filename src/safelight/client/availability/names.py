"""Look up the names of hosts."""

from __future__ import annotations

import socket

import aiohttp
from aiohttp.abc import ResolveResult


def unknown_host() -> OSError:
    """Return the error of a name that cannot be one, such as `a..b`, for which Python raises UnicodeError."""
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Resolver(aiohttp.ThreadedResolver):
    """Looks up names. One that cannot be a name is unknown like any other."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError."""
        try:
            return await super().resolve(host, port, family)
        except UnicodeError:
            raise unknown_host() from None
