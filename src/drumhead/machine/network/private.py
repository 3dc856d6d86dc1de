"""The private network between the machines of one host: who has which address, without anybody handing them out.

All QEMU processes of a link send to one multicast group on the loopback interface; that needs no root and no switch. A
card's address follows from its MAC, and its MAC from the machine's name, so both are known before a machine starts.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.home import Home
    from drumhead.machine.records import Launch

PREFIX = 10
"""10.64.0.0/10: room for four million machines, away from QEMU's user network 10.0.2.0/24."""


@dataclass(frozen=True)
class Group:
    """Where the frames of a link go: an IPv4 multicast group (administratively scoped) and a UDP port."""

    address: str
    port: int


def link_group(home: Home, link: str) -> Group:
    """The group of a link; different homes never share one."""
    digest = hashlib.sha256(f"{home.root}\0{link}".encode()).digest()
    return Group(f"239.{digest[0]}.{digest[1]}.{digest[2]}", 20000 + int.from_bytes(digest[3:5]) % 10000)


def derive_mac(link: str, name: str) -> str:
    """A locally administered MAC (02:…) for a machine's card on `link`."""
    digest = hashlib.sha256(f"{link}/{name}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])


def derive_address(mac: str) -> str:
    """The address on the link of the card with this MAC: its last 22 bits in 10.64.0.0/10."""
    low = int(mac.replace(":", ""), 16) & 0x3FFFFF
    # The first address of the network and the last, which is broadcast, belong to nobody.
    low = min(max(low, 1), 0x3FFFFE)
    return f"10.{64 + (low >> 16)}.{low >> 8 & 255}.{low & 255}"


def host_name(name: str) -> str:
    """A machine's name as a host name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", name)


def link_hosts(launches: Iterable[Launch], link: str) -> dict[str, str]:
    """The names on a link and their addresses. An alias of several machines means the first that has it.

    Each is there as NAME.localhost too: on the host such a name means 127.0.0.1 (RFC 6761), where forwarded ports
    are, so that an address like ``db.localhost:8001`` leads to the machine from both sides.
    """
    hosts: dict[str, str] = {}
    members = sorted((one for one in launches if one.spec.link == link and one.address), key=lambda one: one.spec.name)
    for launch in members:
        hosts[host_name(launch.spec.name)] = launch.address
    for launch in members:
        for alias in launch.spec.aliases:
            hosts.setdefault(alias, launch.address)
    return hosts | {f"{name}.localhost": address for name, address in hosts.items()}


def refuse_taken_address(launches: Iterable[Launch], name: str, link: str, address: str) -> None:
    """Two names may, rarely, lead to one address. Raises CONFLICT."""
    for launch in launches:
        if launch.spec.link == link and launch.address == address and launch.spec.name != name:
            raise DrumheadError(
                ErrorCode.CONFLICT,
                f"{launch.spec.name} has the address {address} already; give {name} another --mac or another name",
            )
