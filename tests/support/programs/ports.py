"""Find ports that stay free until a test's program listens on them."""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, suppress

_EACH = 1_400
_FIRST = 10_000 + _EACH * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16)
"""The first of the ports of this process of the tests: other processes choose others, and all are below the system's
ephemeral ports, so that no connection takes a port between its choice and its use."""
_given: deque[int] = deque(maxlen=_EACH // 2)
"""The ports that were returned lately, whose programs may not listen yet."""


def free_port() -> int:
    """Return a port without a listener that was not returned lately."""
    return _free(range(_FIRST, _FIRST + _EACH), (0,))


def first_of_free_ports() -> int:
    """Return the first of the ports that `safelight up` and its two workers use when it is told the first.

    The two ports below it are free, too, for systems that overlap with the first one.
    """
    return _free(range(_FIRST + 2, _FIRST + _EACH - 20, 20), (-2, -1, 0, 1, 2, 3, 10, 11))


def reserve(ports: Iterable[int]) -> None:
    """Do not return ports that a stopped program will use again."""
    _given.extend(ports)


def _free(firsts: range, offsets: tuple[int, ...]) -> int:
    for first in random.SystemRandom().sample(firsts, len(firsts)):
        ports = [first + offset for offset in offsets]
        if any(port in _given for port in ports):
            continue
        with ExitStack() as stack, suppress(OSError):
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            _given.extend(ports)
            return first
    raise AssertionError("no port is free")
