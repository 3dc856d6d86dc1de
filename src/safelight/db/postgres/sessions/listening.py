"""Notifications of other instances: what they commit wakes the callers that wait here."""

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
    """Called with how many tasks can be leased, whether there are events, and whether webhook calls are due."""

    def __call__(self, available: int, *, events: bool, webhooks: bool) -> None: ...


@asynccontextmanager
async def listening(address: Address, heard: Heard) -> AsyncIterator[None]:
    """Listen until the context ends.

    A lost session is opened again. Whatever was missed meanwhile counts as everything: all who wait look again.
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
            log.warning("No notifications of other instances: %s", error)
            await asyncio.sleep(_PAUSE)


def _listener(heard: Heard) -> Callable[..., None]:
    def listener(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        available, events, webhooks = str(payload).split()
        heard(int(available), events=events == "1", webhooks=webhooks == "1")

    return listener
