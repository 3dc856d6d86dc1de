"""Ask a machine for its service over the private network, as its neighbours do, without a card of the host.

Frames are written here and sent to the network's multicast group: a question for the hardware address (ARP), then one
for a connection (TCP), which is taken back before the program sees it. The kernel of the guest answers both. It needs
neither root nor namespaces. Sources: RFC 826, RFC 791, RFC 9293.
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

unknown: frames do not even come back to their sender, so the network of the host is at fault and no machine.
"""

ANSWER_TIME = 3.0
"""Seconds for all answers. A kernel gives them within milliseconds, on a very busy host within a second."""
ASK_AGAIN = 0.5
"""Seconds until a question is repeated, as frames may be lost."""
MAX_FRAME = 1 << 16
BROADCAST = b"\xff" * 6
ETHERTYPE_ARP, ETHERTYPE_IP = b"\x08\x06", b"\x08\x00"
ARP = struct.Struct("!HHBBH6s4s6s4s")
ARP_REQUEST, ARP_REPLY = 1, 2
TCP_PROTOCOL = 6
RST, SYN, ACK = 4, 2, 16


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Where a service is on a private network."""

    group: MulticastGroup
    address: str
    port: int


def reach(wanted: Neighbour, *, time_limit: float | None = None) -> Reach:
    """Tell whether a service can be reached over its network. Blocks for at most `time_limit` seconds (ANSWER_TIME)."""
    try:
        with private.open_group(wanted.group) as link:
            return _Question(link, wanted).ask(time.monotonic() + (ANSWER_TIME if time_limit is None else time_limit))
    except OSError:
        return "unknown"


class _Question:
    """One machine that asks, with an address of its own, and what it has heard."""

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
        """Repeat the question that is open until the last is answered, or until `deadline`."""
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
                    break  # the next question need not wait
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
        """Return the frame of a TCP segment without data: SYN asks for a connection, RST takes that back."""
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
