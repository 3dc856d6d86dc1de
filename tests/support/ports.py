"""Ports that are free until the program that a test starts listens on them."""

from __future__ import annotations

import random
import socket

_RANGE = range(10_000, 32_768)
"""Below the ports that the system hands out by itself, so that no connection takes one between choice and use."""
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on and that was not returned before."""
    for port in random.SystemRandom().sample(_RANGE, 1000):
        if port not in _given:
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            _given.add(port)
            return port
    raise AssertionError("no port is free")
