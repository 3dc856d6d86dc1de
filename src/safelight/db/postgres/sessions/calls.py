"""The calls that wait for a session."""

from __future__ import annotations

import asyncio

from safelight.db.commit.call import Call
from safelight.errors import Code, Error


class Calls:
    """Calls that wait for a session."""

    def __init__(self) -> None:
        self._waiting: list[Call] = []
        self._more = asyncio.Event()
        self.closed = False

    def put(self, call: Call) -> None:
        if self.closed:
            call.error = Error(Code.UNAVAILABLE, "The database is stopping.", retry_after=1)
            call.answer()
            return
        self._waiting.append(call)
        self._more.set()

    async def take(self, most: int) -> list[Call]:
        """Wait for calls and take up to `most`; return none once it is closed and empty."""
        while not self._waiting and not self.closed:
            self._more.clear()
            await self._more.wait()
        taken, self._waiting = self._waiting[:most], self._waiting[most:]
        return taken

    def close(self) -> None:
        self.closed = True
        self._more.set()
