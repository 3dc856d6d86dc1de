"""Wait until a server that was started listens on its port."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable

TIMEOUT = 60.0


def wait_listening(process: subprocess.Popen[bytes], port: int, output: Callable[[], str] = str) -> None:
    """Connect until a process takes connections on a port of this host; `output` is what to show if it does not."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{process.args!r} does not listen: {output()[-2000:]}")
