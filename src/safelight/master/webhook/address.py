"""Check which addresses a webhook may call: none inside the network, unless that is allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from safelight.errors import Code, Error

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The allocated global unicast range of IPv6; site-local, IPv4-compatible and translated addresses are outside."""

# Special-purpose addresses (RFC 6890) that `is_global` lets through, because it uses the column "globally reachable" of
# the registries as of its Python version. No web server has such an address.
_SPECIAL_4 = tuple(
    ipaddress.IPv4Network(network)
    for network in ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24")
)
_SPECIAL_6 = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")
)

_LOCAL = re.compile(r"(^|\.)localhost\.?$")  # RFC 6761
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_LONGEST = 253
"""The most characters of a host name, by the DNS."""


class RefusedAddressError(OSError):
    """The host name resolves to an address that webhooks may not call."""


def check_url(text: str, *, allow_private: bool) -> None:
    """Check a URL as far as that is possible without resolving its host. Raises INVALID_REQUEST.

    A name that resolves to an address inside the network is refused at the call, since its address may change.
    """
    try:
        url = URL(text)
        host, port = url.raw_host, url.port
    except ValueError:
        host, port, url = None, None, URL()
    if url.scheme not in ("http", "https") or not host or not port or url.user is not None:
        sentence = "A webhook is an http:// or https:// URL with a host, without a user name and password."
        raise Error(Code.INVALID_REQUEST, sentence, position="webhook")
    if not _is_address(host):
        _check_name(host)
    if not allow_private and (_LOCAL.search(host) or (_is_address(host) and not is_public(host))):
        sentence = f"The host {host} of the webhook is inside this network. Only --webhook-allow-private allows that."
        raise Error(Code.INVALID_REQUEST, sentence, position="webhook")


def _check_name(host: str) -> None:
    """Refuse a name that no call could ever reach: otherwise calls would be repeated for a day. Raises INVALID_REQUEST.

    Resolvers take `2130706433` and `0x7f.1` for addresses, so no name in the DNS ends like them.
    """
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        sentence = f"The host {host[:_LONGEST]} of the webhook is no address. An address of IPv4 is like 192.0.2.1."
        raise Error(Code.INVALID_REQUEST, sentence, position="webhook")
    if len(host) > _LONGEST or not all(map(_LABEL.fullmatch, labels)):
        sentence = f"The host {host[:_LONGEST]} of the webhook is not a valid host name."
        raise Error(Code.INVALID_REQUEST, sentence, position="webhook")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Return whether an IP address is public, even if it is embedded in another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is None:
            return ip.is_global and ip in _UNICAST and not any(ip in network for network in _SPECIAL_6)
        ip = inner
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL_4)


def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Open the socket for one connection attempt, if its address is public.

    It checks the address of the actual connection, after the name was resolved. Raises RefusedAddressError.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        # The sentence names no address: a tenant would learn those of the network. Of several errors the library keeps
        # the type only if they say the same.
        raise RefusedAddressError("the host is inside this network, which only --webhook-allow-private allows")
    return socket.socket(family, kind, protocol)


class Resolver(AbstractResolver):
    """Resolves the names of webhooks in threads of its own.

    A tenant may choose names whose servers never answer. They must not occupy the few threads that the event loop has
    for everything else.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError."""
        stream, usable = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
        look_up = partial(socket.getaddrinfo, host, port, family=family, type=stream, flags=usable)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=numeric)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Start no more look-ups."""
        self._threads.shutdown(wait=False, cancel_futures=True)
