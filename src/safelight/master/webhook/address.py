"""Where a webhook may go: never to an address inside the network, unless that is allowed."""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
from yarl import URL

from safelight.errors import Code, Error

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RefusedAddressError(OSError):
    """The name leads to an address that webhooks may not reach."""


def check_url(text: str, *, allow_private: bool) -> None:
    """Refuse what can never be called. Raises INVALID_REQUEST.

    A name that leads inside is found out when it is called, since what a name means may change.
    """
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        host, port, url = None, None, URL()
    if url.scheme not in ("http", "https") or not host or not port or url.user is not None:
        sentence = "A webhook is an http:// or https:// URL with a host and without user name and password."
        raise Error(Code.INVALID_REQUEST, sentence, position="webhook")
    if not allow_private and (host == "localhost" or (_is_address(host) and not is_public(host))):
        sentence = f"The webhook's host {host} is inside this network, which --webhook-allow-private would allow."
        raise Error(Code.INVALID_REQUEST, sentence, position="webhook")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether an IP address is out on the internet, whatever it is wrapped in."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Open the socket for one connection attempt, if its address is public.

    This is the address that is connected to, whatever a name meant a moment ago. Raises RefusedAddressError.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise RefusedAddressError(f"{address[0]} is inside this network; --webhook-allow-private would allow it")
    return socket.socket(family, kind, protocol)
