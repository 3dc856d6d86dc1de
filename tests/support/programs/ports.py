"""Find ports that stay free until a test's program listens on them."""

from __future__ import annotations

import random
import socket

_RANGE = range(10_000, 32_768)
"""The first port, below the system's ephemeral ports, so that no connection takes a port between choice and use."""
_given: set[int] = set()


def free_port() -> int:
    """Return a port without a listener that was not returned before."""
    for port in random.SystemRandom().sample(_RANGE, 1000):
        if port not in _given:
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            _given.add(port)
            return port
    raise AssertionError("no port is free")
