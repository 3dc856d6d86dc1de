"""Receive notifications of other instances, whose commits wake the callers that wait here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from safelight.db.postgres.sessions.address import Address
from safelight.errors import Error

log = logging.getLogger(__name__)

_CHANNEL = "safelight"
_CHECK = 10.0
"""Seconds between two checks that the session is alive."""
_PAUSE = 1.0


class Heard(Protocol):
    """A callback for a notification: how many tasks can be leased, and whether events or calls are due."""

    def __call__(self, available: int, *, events: bool, webhooks: bool) -> None: ...


@asynccontextmanager
async def listening(address: Address, heard: Heard) -> AsyncIterator[None]:
    """Listen until the context ends.

    A lost session is opened again. Then all waiters are woken, since notifications may have been missed.
    """
    task = asyncio.create_task(_listen(address, heard), name="database listener")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen(address: Address, heard: Heard) -> None:
    while True:
        try:
            connection = await address.connect()
            try:
                await connection.add_listener(_CHANNEL, _listener(heard))
                heard(1, events=True, webhooks=True)
                while True:
                    await asyncio.sleep(_CHECK)
                    await connection.fetchval("SELECT 1", timeout=_CHECK)
            finally:
                connection.terminate()
        except (Error, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("Notifications of other instances are interrupted: %s", error)
            await asyncio.sleep(_PAUSE)


def _listener(heard: Heard) -> Callable[..., None]:
    def listener(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        available, events, webhooks = str(payload).split()
        heard(int(available), events=events == "1", webhooks=webhooks == "1")

    return listener
