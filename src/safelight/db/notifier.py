"""Wake those who wait for events or for webhook calls. Every backend can use it."""

from __future__ import annotations

import asyncio


class Notifier:
    """Wake everybody who waits for something to happen.

    `count` grows with each notification: note it before you look, and none between the look and the wait is missed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._closed = False
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, since: int, seconds: float) -> bool:
        """Wait until `count` differs from `since`; False when the time is over or nothing more will come."""
        if self._closed or seconds <= 0:
            return False
        if self.count != since:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            self._waiting.discard(future)
        return future.done() and not self._closed

    def notify(self) -> None:
        """Wake everybody who waits."""
        self.count += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closed = True
        self.notify()
