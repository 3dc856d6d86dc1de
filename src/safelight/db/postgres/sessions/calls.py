"""The calls that wait for a session."""

from __future__ import annotations

import asyncio

from safelight.db.commit.call import Call
from safelight.errors import Code, Error


class Calls:
    """Calls that wait for a session.

    Of several idle sessions, the one that was used last takes the next calls: it has less to learn of what others have
    committed.
    """

    def __init__(self) -> None:
        self._waiting: list[Call] = []
        self._idle: list[asyncio.Future[None]] = []
        self.closed = False

    def put(self, call: Call) -> None:
        if self.closed:
            call.error = Error(Code.UNAVAILABLE, "The database is stopping.", retry_after=1)
            call.answer()
            return
        self._waiting.append(call)
        if self._idle:
            self._idle.pop().set_result(None)

    async def take(self, most: int) -> list[Call]:
        """Wait for calls and take up to `most`; return none once it is closed and empty."""
        while not self._waiting and not self.closed:
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            try:
                await idle
            finally:
                if idle in self._idle:  # cancelled
                    self._idle.remove(idle)
        taken, self._waiting = self._waiting[:most], self._waiting[most:]
        return taken

    def close(self) -> None:
        self.closed = True
        while self._idle:
            self._idle.pop().set_result(None)
