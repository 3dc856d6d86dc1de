"""Migrate the schema of the database, and check it at each start."""

from __future__ import annotations

import logging
from typing import Any

import asyncpg

from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.connection import PACKAGE
from safelight.errors import Code, Error
from safelight.sql import scripts

log = logging.getLogger(__name__)

_LOCK = "SELECT pg_advisory_lock(23294, -1)"
_VERSION_TABLE = "CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)"


async def migrate(address: Address) -> int:
    """Migrate the database to the newest schema, each step in a transaction of its own; return the version.

    An empty database is set up in one transaction, so that an interruption never leaves it half set up. Several
    instances may do this at once. Raises UNAVAILABLE with the reason.
    """
    connection = await address.connect(statement_timeout="0", lock_timeout="60s", enable_seqscan="on")
    try:
        await connection.execute(_LOCK)
        await connection.execute(_VERSION_TABLE)
        steps = scripts.migrations(PACKAGE)
        version = await _version(connection)
        _refuse_newer(address, version, len(steps))
        missing = list(enumerate(steps[version:], start=version + 1))
        for together in [missing] if version == 0 else [[step] for step in missing]:
            async with connection.transaction():
                for number, script in together:
                    log.info("Migrating the database to version %d", number)
                    await connection.execute(script)
                    await connection.execute("DELETE FROM schema_version")
                    await connection.execute("INSERT INTO schema_version VALUES ($1)", number)
        return len(steps)
    except asyncpg.PostgresError as error:
        raise Error(Code.UNAVAILABLE, f"The database at {address.shown} cannot be migrated: {error}.") from error
    finally:
        await connection.close()


async def check(address: Address) -> None:
    """Set up an empty database, and refuse one of another version. Raises UNAVAILABLE with what to do."""
    connection = await address.connect()
    try:
        exists = await connection.fetchval("SELECT to_regclass('schema_version') IS NOT NULL")
        version = await _version(connection) if exists else 0
    finally:
        await connection.close()
    newest = len(scripts.migrations(PACKAGE))
    _refuse_newer(address, version, newest)
    if version == 0:
        await migrate(address)
    elif version < newest:
        raise Error(
            Code.UNAVAILABLE,
            f"The database at {address.shown} has schema version {version}, and this safelight needs {newest}. "
            "Stop every older db, then run: safelight db --store URL --migrate",
        )


async def _version(connection: asyncpg.Connection[Any]) -> int:
    return await connection.fetchval("SELECT max(version) FROM schema_version") or 0


def _refuse_newer(address: Address, version: int, newest: int) -> None:
    if version > newest:
        detail = f"The database at {address.shown} was written by a newer safelight; start that version instead."
        raise Error(Code.UNAVAILABLE, detail)
