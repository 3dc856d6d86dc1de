"""Check whether a service of a machine can be reached over the private network, without a card on the host.

This module builds frames and sends them to the network's multicast group: an ARP request for the hardware address, then
a TCP SYN, and a RST before the program sees the connection. The guest's kernel answers both. This needs neither root
nor namespaces. Sources: RFC 826, RFC 791, RFC 9293.
"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from drumhead.machine.network import private

if TYPE_CHECKING:
    from drumhead.machine.network.private import MulticastGroup

Reach = Literal["reached", "silent", "refused", "unknown"]
"""silent: no answer came. refused: the machine answers, but nothing listens on the port at its own address.

unknown: the sender does not even receive its own frames, so the host's network is at fault and not the machine.
"""

ANSWER_TIME = 3.0
"""Seconds for all answers. A kernel answers within milliseconds, on a very busy host within a second."""
ASK_AGAIN = 0.5
"""Seconds until a request is repeated, because frames may be lost."""
MAX_FRAME = 1 << 16
BROADCAST = b"\xff" * 6
ETHERTYPE_ARP, ETHERTYPE_IP = b"\x08\x06", b"\x08\x00"
ARP = struct.Struct("!HHBBH6s4s6s4s")
ARP_REQUEST, ARP_REPLY = 1, 2
TCP_PROTOCOL = 6
RST, SYN, ACK = 4, 2, 16


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """The address and port of a service on a private network."""

    group: MulticastGroup
    address: str
    port: int


def reach(wanted: Neighbour, *, time_limit: float | None = None) -> Reach:
    """Return whether a service can be reached over its network. Block for at most `time_limit` (or ANSWER_TIME)
    seconds.
    """
    try:
        with private.open_group(wanted.group) as link:
            return _Question(link, wanted).ask(time.monotonic() + (ANSWER_TIME if time_limit is None else time_limit))
    except OSError:
        return "unknown"


class _Question:
    """A made-up machine that sends the requests: its addresses, and what it has received."""

    def __init__(self, link: socket.socket, wanted: Neighbour) -> None:
        self._link = link
        self._to = (wanted.group.address, wanted.group.port)
        self._mac = b"\x02" + secrets.token_bytes(5)
        self._own = socket.inet_aton(private.derive_address(self._mac.hex()))
        self._address = socket.inet_aton(wanted.address)
        self._ports = struct.pack("!HH", 49152 + secrets.randbelow(16384), wanted.port)
        self._sequence = secrets.randbits(32)
        self._their_mac = b""
        self._heard_itself = False

    def ask(self, deadline: float) -> Reach:
        """Send ARP requests and then SYNs until one is answered conclusively, or until `deadline`."""
        while (now := time.monotonic()) < deadline:
            self._send(self._connect(SYN) if self._their_mac else self._who_has())
            again = min(now + ASK_AGAIN, deadline)
            while (left := again - time.monotonic()) > 0 and select.select([self._link], [], [], left)[0]:
                known = bool(self._their_mac)
                answer = self._hear(self._link.recv(MAX_FRAME))
                if answer:
                    self._send(self._connect(RST))
                    return answer
                if self._their_mac and not known:
                    break  # send the SYN at once
        return "silent" if self._heard_itself else "unknown"

    def _send(self, frame: bytes) -> None:
        with suppress(BlockingIOError):
            self._link.sendto(frame, self._to)

    def _hear(self, frame: bytes) -> Reach | None:
        if frame[6:12] == self._mac:
            self._heard_itself = True
        elif frame[12:14] == ETHERTYPE_ARP and len(frame) >= 14 + ARP.size:
            self._hear_arp(ARP.unpack_from(frame, 14))
        elif frame[12:14] == ETHERTYPE_IP:
            return self._hear_ip(frame[14:])
        return None

    def _hear_arp(self, message: tuple[int, int, int, int, int, bytes, bytes, bytes, bytes]) -> None:
        *_, operation, mac, address, _, asked = message
        if asked != self._own or address != self._address:
            return
        if operation == ARP_REPLY:
            self._their_mac = mac
        elif operation == ARP_REQUEST:
            self._send(mac + self._mac + ETHERTYPE_ARP + self._arp(ARP_REPLY, mac))

    def _hear_ip(self, packet: bytes) -> Reach | None:
        header = (packet[0] & 15) * 4 if packet else 0
        segment = packet[header:]
        if len(segment) < 20 or packet[9] != TCP_PROTOCOL:
            return None
        if packet[12:20] != self._address + self._own or segment[:4] != self._ports[2:] + self._ports[:2]:
            return None
        return "refused" if segment[13] & RST else "reached" if segment[13] & (SYN | ACK) == SYN | ACK else None

    def _who_has(self) -> bytes:
        return BROADCAST + self._mac + ETHERTYPE_ARP + self._arp(ARP_REQUEST, bytes(6))

    def _arp(self, operation: int, to: bytes) -> bytes:
        return ARP.pack(1, 0x0800, 6, 4, operation, self._mac, self._own, to, self._address)

    def _connect(self, flag: int) -> bytes:
        """Return the frame of a TCP segment without data: SYN opens a connection, RST resets it."""
        sequence = self._sequence + (flag == RST) & 0xFFFFFFFF
        both = self._own + self._address
        head, tail = self._ports + struct.pack("!IIBBH", sequence, 0, 5 << 4, flag, 1024), b"\0\0"
        pseudo = both + struct.pack("!BBH", 0, TCP_PROTOCOL, 20)
        segment = head + _checksum(pseudo + head + b"\0\0" + tail) + tail
        start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, TCP_PROTOCOL)
        packet = start + _checksum(start + b"\0\0" + both) + both + segment
        return self._their_mac + self._mac + ETHERTYPE_IP + packet


def _checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
