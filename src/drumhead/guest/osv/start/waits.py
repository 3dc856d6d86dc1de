"""Let the main thread handle a request to stop while it waits.

On Linux a signal interrupts a wait. OSv interrupts no system call, so the main thread wakes from time to time, and
Python runs the handlers of signals then.
"""

from __future__ import annotations

import threading
import time
from typing import SupportsIndex

PIECE = 0.5
"""The longest wait in seconds."""


def install() -> None:
    """Replace ``time.sleep`` and the waits of ``threading``, which queues, events and executors use."""
    plain_sleep, plain_wait, plain_join = time.sleep, threading.Condition.wait, threading.Thread.join

    def sleep(seconds: float | SupportsIndex, /) -> None:
        if not _is_main() or not isinstance(seconds, int | float) or not PIECE < seconds < threading.TIMEOUT_MAX:
            plain_sleep(seconds)
            return
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            plain_sleep(min(left, PIECE))

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if not _is_main():
            return plain_wait(self, timeout)
        end = _end(timeout)
        # Nobody can notify between two pieces, because this thread holds the lock then.
        while not plain_wait(self, min(_left(end), PIECE)):
            if _left(end) <= 0:
                return False
        return True

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if not _is_main() or self is threading.main_thread():
            plain_join(self, timeout)
            return
        end = _end(timeout)
        plain_join(self, max(min(_left(end), PIECE), 0))
        while self.is_alive() and _left(end) > 0:
            plain_join(self, max(min(_left(end), PIECE), 0))

    time.sleep = sleep
    threading.Condition.wait = wait  # type: ignore[method-assign]
    threading.Thread.join = join  # type: ignore[method-assign]


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _end(timeout: float | None) -> float:
    return float("inf") if timeout is None else time.monotonic() + timeout


def _left(end: float) -> float:
    return end - time.monotonic()
