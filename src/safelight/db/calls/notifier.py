"""Wake callers that wait for events or webhook calls, for every backend."""

from __future__ import annotations

import asyncio


class Notifier:
    """Wakes all callers that wait for something to happen.

    `count` grows with each notification. Read it before you look for changes, and pass it to `wait`, so that no
    notification in between is missed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._closed = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        """The waiters, which are woken in order of arrival."""

    async def wait(self, since: int, seconds: float) -> bool:
        """Wait until `count` differs from `since`. Return False after `seconds`, or once the notifier is closed."""
        if self._closed or seconds <= 0:
            return False
        if self.count != since:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            await asyncio.wait({future}, timeout=seconds)
        finally:
            self._waiting.pop(future, None)
        return future.done() and not self._closed

    def notify(self) -> None:
        """Wake all waiters."""
        self.count += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def close(self) -> None:
        """Wake all waiters, and let none wait again."""
        self._closed = True
        self.notify()
