"""Networks and addresses that an operator names."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """A set of networks, which caches the result for each address."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._contains = lru_cache(maxsize=4096)(self._look)

    @classmethod
    def parse(cls, text: str) -> Networks:
        """Read addresses and networks, separated by commas. Raises ValueError with a sentence."""
        found = []
        for name in (part.strip() for part in text.split(",")):
            if name:
                try:
                    found.append(ipaddress.ip_network(name))
                except ValueError as error:
                    raise ValueError(f"{error}. Write addresses or networks: 10.0.0.7,192.168.1.0/24") from None
        return cls(found)

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        """Return whether an address, as text, is in one of them."""
        return isinstance(address, str) and bool(self._networks) and self._contains(address)

    def _look(self, address: str) -> bool:
        found = parsed(address)
        return found is not None and any(
            found in network for network in self._networks if network.version == found.version
        )


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address; return an IPv4-mapped IPv6 address as IPv4, and None for text that is not an address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def is_loopback(host: str) -> bool:
    """Return whether a host (an address or a localhost name) is always this machine, whatever a name server says."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    found = parsed(name)
    return found is not None and found.is_loopback
