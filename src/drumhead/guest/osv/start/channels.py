"""Channels to the host: TCP connections to an address of QEMU's user network that lead to files and sockets."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

Answer = tuple[dict[str, Any], Callable[[], None] | None]
TIME_LIMIT = 5.0
"""Seconds for connecting, and for sending the last bytes."""
LINGER = struct.pack("ii", 1, int(TIME_LIMIT))


class Line:
    """A connection for JSON lines."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), timeout=TIME_LIMIT)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self, handle: Callable[[dict[str, Any]], Answer]) -> None:
        """Answer each line until the other end hangs up. `handle` may return a function to call after its answer."""
        with self._socket.makefile("rb") as lines:
            for line in lines:
                try:
                    request = json.loads(line)
                    answer, then = handle(request if isinstance(request, dict) else {})
                except ValueError:
                    answer, then = {"ok": False, "reason": "not JSON"}, None
                self.write(answer)
                if then is not None:
                    then()

    def close(self) -> None:
        """Close the connection after all written data has arrived."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self._socket.close()


def redirect_output(address: str, port: int) -> Line:
    """Redirect stdout and stderr of this process, libraries included, to the host's log."""
    line = Line(address, port)
    number = line._socket.fileno()  # noqa: SLF001 - ours
    for stream in (1, 2):
        os.dup2(number, stream)
    return line
