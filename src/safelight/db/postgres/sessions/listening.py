"""Receive notifications of other instances, whose commits wake the callers that wait here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from safelight import background
from safelight.client.availability.reachability import AGAIN, EVERY, LIMIT, Reachability
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.failures import READ_ONLY, told
from safelight.errors import Error

log = logging.getLogger(__name__)

_CHANNEL = "safelight"
_CHECK = 10.0
"""Seconds that the server has for an answer before the session is replaced."""
_ASKED = "SELECT current_setting('transaction_read_only') = 'on', to_regclass('ledger') IS NULL"
"""Looking for a table takes no lock on it, so a long migration or dump does not hold this up."""
_EMPTIED = "The tables of the database are gone. Stop every db, and restore a backup of the database."


class Heard(Protocol):
    """A callback for a notification: how many tasks can be leased, and whether events or calls are due."""

    def __call__(self, available: int, *, events: bool, webhooks: bool) -> None: ...


@asynccontextmanager
async def listening(address: Address, heard: Heard, reachability: Reachability) -> AsyncIterator[None]:
    """Listen until the context ends.

    A lost session is opened again. Then all waiters are woken, since notifications may have been missed. What the
    session shows about the server is recorded in `reachability`, so that readiness needs no session of its own.
    """
    async with background.running(lambda: _listen(address, heard, reachability), "database listener"):
        yield


async def _listen(address: Address, heard: Heard, reachability: Reachability) -> None:
    while True:
        try:
            connection = await address.connect()
            try:
                await connection.add_listener(_CHANNEL, _listener(heard))
                heard(1, events=True, webhooks=True)
                while True:
                    await _check(connection, reachability)
                    await _lost(connection, AGAIN if reachability.is_failing else EVERY)
            finally:
                connection.terminate()
        except (Error, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.log(
                logging.DEBUG if reachability.is_failing else logging.WARNING,
                "Notifications of other instances are interrupted: %s",
                error,
            )
            reachability.failed(told(error).detail)
            await asyncio.sleep(AGAIN)


async def _check(connection: asyncpg.Connection[Any], reachability: Reachability) -> None:
    """Ask the server, and record whether it answers, may be written and still has the tables.

    A slow answer costs the session only if it takes long.
    """
    answer = asyncio.ensure_future(connection.fetchrow(_ASKED, timeout=_CHECK))
    try:
        while not answer.done():
            await asyncio.wait([answer], timeout=LIMIT)
            if not answer.done():
                reachability.failed(f"PostgreSQL gives no answer for {LIMIT:g} seconds.")
        read_only, emptied = answer.result() or (False, False)
        if read_only or emptied:
            reachability.failed(READ_ONLY if read_only else _EMPTIED)
        else:
            reachability.answered()
    finally:
        answer.cancel()


async def _lost(connection: asyncpg.Connection[Any], within: float) -> None:
    """Wait until the session is lost, or for so many seconds."""
    lost = asyncio.Event()

    def notice(_connection: object) -> None:
        lost.set()

    connection.add_termination_listener(notice)
    try:
        async with asyncio.timeout(within):
            await lost.wait()
    except TimeoutError:
        pass  # it lasts
    finally:
        connection.remove_termination_listener(notice)


def _listener(heard: Heard) -> Callable[..., None]:
    def listener(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        available, events, webhooks = str(payload).split()
        heard(int(available), events=events == "1", webhooks=webhooks == "1")

    return listener
