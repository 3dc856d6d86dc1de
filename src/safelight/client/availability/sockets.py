"""Make the sockets of connections."""

from __future__ import annotations

import socket

from aiohttp import AddrInfoType

from safelight.keepalive import keep_alive

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
