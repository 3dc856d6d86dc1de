"""Let the kernel notice that the machine at the other end of a connection has lost its power or its network.

Such a machine resets nothing, so a program that only waits for an answer would wait to the end of its patience, also
when the machine has long been running again. The kernel of a program that is merely slow or suspended does answer.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from aiohttp import AddrInfoType

_IDLE, _INTERVAL, _PROBES = 5, 5, 3
"""Seconds without traffic before the first probe, seconds between probes, and their number.

A machine that is back rejects the first probe. One that stays away is noticed after 20 seconds, where liveness is not
checked.
"""


def watched(address: AddrInfoType) -> socket.socket:
    """Return a socket for an address whose connection ends when the machine there is gone, or has started anew."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    keep_alive(made, idle=_IDLE, interval=_INTERVAL, probes=_PROBES)
    return made


def keep_alive(
    connection: socket.socket, *, idle: int, interval: int, probes: int, unanswered: int | None = None
) -> None:
    """Let the kernel probe a TCP connection that carries nothing, and end it if no probe is answered.

    The first probe is sent after `idle` seconds, the others every `interval` seconds. `unanswered` are the seconds that
    data may remain unacknowledged; the default is the system's, many minutes.
    """
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = {"TCP_KEEPIDLE": idle, "TCP_KEEPINTVL": interval, "TCP_KEEPCNT": probes}
    if unanswered is not None:
        options["TCP_USER_TIMEOUT"] = unanswered * 1000
    with suppress(OSError):  # not every system has all of these options
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in options.items():
            if (number := getattr(socket, option, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, number, value)
