"""The private network between the machines of one host. Addresses are derived, so no server has to assign them.

All QEMU processes of a network send to one multicast group on the loopback interface, which needs no root and no
switch. A card's address is derived from its MAC, and its MAC from the machine's name, so both are known before a
machine starts.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from drumhead.home import Home
    from drumhead.machine.records import Launch

LOOPBACK = "127.0.0.1"
PREFIX = 10
"""10.64.0.0/10: room for four million machines, away from QEMU's user network 10.0.2.0/24."""

PREFIX6 = 64


@dataclass(frozen=True)
class MulticastGroup:
    """The destination of a network's frames: an IPv4 multicast group (administratively scoped) and a UDP port."""

    address: str
    port: int


def multicast_group(home: Home, network: str) -> MulticastGroup:
    """Return the multicast group of a network. Networks of different homes have different groups."""
    digest = hashlib.sha256(f"{home.root}\0{network}".encode()).digest()
    return MulticastGroup(f"239.{digest[0]}.{digest[1]}.{digest[2]}", 20000 + int.from_bytes(digest[3:5]) % 10000)


def open_group(group: MulticastGroup) -> socket.socket:
    """Return a socket that has joined the network's group, with the options that QEMU uses."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind((group.address, group.port))
        member = struct.pack("4s4s", socket.inet_aton(group.address), socket.inet_aton(LOOPBACK))
        link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        link.setblocking(False)  # noqa: FBT003
    except OSError:
        link.close()
        raise
    return link


def derive_mac(network: str, name: str) -> str:
    """Derive a locally administered MAC address (02:…) for a machine's card on `network`."""
    digest = hashlib.sha256(f"{network}/{name}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])


def derive_address(mac: str) -> str:
    """Derive the IPv4 address of a card from its MAC: the last 22 bits, in 10.64.0.0/10."""
    low = int(mac.replace(":", ""), 16) & 0x3FFFFF
    # The first address is the network's and the last is broadcast.
    low = min(max(low, 1), 0x3FFFFE)
    return f"10.{64 + (low >> 16)}.{low >> 8 & 255}.{low & 255}"


def derive_address6(network: str, mac: str) -> str:
    """Derive the IPv6 address of a card: the network's prefix (RFC 4193) and the MAC (RFC 4291, appendix A)."""
    scope = hashlib.sha256(network.encode()).digest()[:5]
    card = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([card[0] ^ 2]) + card[1:3] + b"\xff\xfe" + card[3:]
    return str(ipaddress.IPv6Address(b"\xfd" + scope + bytes(2) + interface))


def host_name(name: str) -> str:
    """Turn a machine's name into a valid host name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", name)


def network_hosts(launches: Iterable[Launch], network: str) -> dict[str, str]:
    """Map the names on a network to addresses. An alias of several machines maps to the first of them.

    A machine is known by its host name, which comes first, and by its own name where that is another one (``my_db``).
    Every name also exists as NAME.localhost. On the host such a name resolves to 127.0.0.1 (RFC 6761), where the
    forwarded ports are, so an address like ``db.localhost:8001`` works on the host and in machines.
    """
    return _names(launches, network, lambda one: one.address)


def network_hosts6(launches: Iterable[Launch], network: str) -> dict[str, str]:
    """Map the same names to IPv6 addresses, for machines that have one."""
    return _names(launches, network, lambda one: one.address6)


def _names(launches: Iterable[Launch], network: str, address_of: Callable[[Launch], str]) -> dict[str, str]:
    hosts: dict[str, str] = {}
    members = sorted(
        (one for one in launches if one.spec.private_network == network and address_of(one)),
        key=lambda one: one.spec.name,
    )
    for launch in members:
        hosts[host_name(launch.spec.name)] = address_of(launch)
    for launch in members:
        for alias in (launch.spec.name, *launch.spec.aliases):
            hosts.setdefault(alias, address_of(launch))
    return hosts | {f"{name}.localhost": address for name, address in hosts.items()}


def refuse_taken_address(others: Iterable[Launch], launch: Launch) -> None:
    """Raise CONFLICT if another machine has the address of `launch`, or its host name.

    In rare cases two names yield the same address; web.1, web-1 and WEB-1 are one host name. A machine on a network of
    the host has no derived address; it gets one from a DHCP server there.
    """
    name, network, address = launch.spec.name, launch.spec.private_network, launch.address
    for other in others if address else ():
        if other.spec.private_network != network or other.spec.name == name or not other.address:
            continue
        if other.address == address:
            raise DrumheadError(
                ErrorCode.CONFLICT,
                f"{other.spec.name} already has the address {address}; give {name} another name or another --mac",
            )
        if host_name(other.spec.name).lower() == host_name(name).lower():
            raise DrumheadError(
                ErrorCode.CONFLICT,
                f"{other.spec.name} has the host name {host_name(name)} on this network; give {name} another name",
            )
