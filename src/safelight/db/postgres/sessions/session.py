"""A session that is opened on demand, and attempts at a transaction in it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import asyncpg

from safelight.db.postgres.ledger import SharedMemory
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.connection import Connection
from safelight.db.postgres.sessions.failures import Concerns, concerns
from safelight.db.postgres.sessions.waiting import run

log = logging.getLogger(__name__)

RETRY_FOR = 15.0
"""Seconds for which calls wait for a server that cannot be reached."""
_PAUSE = 0.2


class Session:
    """One session that is opened on demand, with its memory of the database."""

    def __init__(self, address: Address, opened: Callable[[Session], None] | None = None) -> None:
        self._address = address
        self._opened = opened
        self.connection: Connection | None = None
        self.memory: SharedMemory | None = None

    async def open(self) -> Connection:
        """Return the open session. Raises UNAVAILABLE."""
        if self.connection is not None and self.connection.server.is_closed():
            self.drop()
        if self.connection is None:
            self.connection = Connection(await self._address.connect())
            if self._opened is not None:
                try:
                    await run(partial(self._opened, self))
                except BaseException:
                    self.drop()
                    raise
        return self.connection

    def drop(self) -> None:
        """Give up the session, which rolls back its transaction and releases its locks."""
        if self.connection is not None:
            self.connection.server.terminate()
        self.connection = self.memory = None

    async def close(self) -> None:
        """End the session cleanly."""
        if self.connection is not None:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self.connection.server.close(timeout=5.0)
        self.connection = self.memory = None


class Attempt:
    """Attempts at one transaction, until the server has failed for too long."""

    def __init__(self, failing_since: float | None) -> None:
        self.since = time.monotonic() if failing_since is None else failing_since
        self._warned = False

    async def again(self, error: Exception, session: Session) -> bool:
        """Give up a lost session, wait a little, and return whether to try again."""
        whom = concerns(error)
        if whom not in {Concerns.CALL, Concerns.COMMIT}:
            session.drop()
        if whom is None:
            log.error("The database failed", exc_info=error)
        else:
            level = logging.DEBUG if self._warned else logging.WARNING
            log.log(level, "The database failed; trying again: %s", str(error) or type(error).__name__)
            self._warned = True
        if whom in {None, Concerns.SERVER} or time.monotonic() - self.since >= RETRY_FOR:
            return False
        await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        return True
