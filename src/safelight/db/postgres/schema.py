"""Migrate the schema of the database, and check it at each start."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import asyncpg

from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.connection import PACKAGE
from safelight.db.postgres.sessions.failures import is_passing
from safelight.errors import Code, Error
from safelight.sql import scripts

log = logging.getLogger(__name__)

_PAUSE = 1.0
_LOCK = "SELECT pg_advisory_lock(23294, -1)"
_VERSION_TABLE = "CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)"


async def migrate(address: Address) -> int:
    """Migrate the database to the newest schema; return the version.

    All steps are one transaction: after a failure or an interruption the program that wrote the database can still use
    it. Several instances may do this at once. Raises UNAVAILABLE with the reason.
    """
    connection = await address.connect(statement_timeout="0", lock_timeout="60s", enable_seqscan="on")
    try:
        await _refuse_unusable(address, connection)
        await connection.execute(_LOCK)
        await connection.execute(_VERSION_TABLE)
        steps = scripts.migrations(PACKAGE)
        version = await _version(connection)
        _refuse_newer(address, version, len(steps))
        async with connection.transaction():
            for number, script in enumerate(steps[version:], start=version + 1):
                log.info("Migrating the database to version %d", number)
                await connection.execute(script)
                await connection.execute("DELETE FROM schema_version")
                await connection.execute("INSERT INTO schema_version VALUES ($1)", number)
        return len(steps)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError) as error:
        detail = (
            f"The database at {address.shown} cannot be migrated: {error}. Its user must own the tables, and may "
            "create them in the first schema of search_path: run GRANT CREATE, USAGE ON SCHEMA public TO USER, or "
            "CREATE SCHEMA safelight AUTHORIZATION USER and ALTER ROLE USER SET search_path = safelight."
        )
        raise Error(Code.UNAVAILABLE, detail) from error
    except asyncpg.PostgresError as error:
        raise Error(Code.UNAVAILABLE, f"The database at {address.shown} cannot be migrated: {error}.") from error
    finally:
        await connection.close()


async def check_once_reachable(address: Address) -> None:
    """Do `check` once the server can be reached. Raises UNAVAILABLE for what does not pass by itself."""
    told = ""
    while True:
        try:
            return await check(address)
        except Error as error:
            if not is_passing(error.__cause__):
                raise
            if error.detail != told:
                log.warning("Waiting for the database. %s", error.detail)
                told = error.detail
        await asyncio.sleep(_PAUSE)


async def check(address: Address) -> None:
    """Set up an empty database, and refuse one of another version. Raises UNAVAILABLE with what to do."""
    connection = await address.connect()
    try:
        await _refuse_unusable(address, connection)
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


async def _refuse_unusable(address: Address, connection: asyncpg.Connection[Any]) -> None:
    """Refuse a database that cannot store every text, or that must not be written. Raises UNAVAILABLE."""
    if (encoding := await connection.fetchval("SHOW server_encoding")) != "UTF8":
        detail = (
            f"The database at {address.shown} has the encoding {encoding}, which cannot store every file name. Create "
            "one with UTF-8: createdb --encoding UTF8 --template template0 NAME"
        )
        raise Error(Code.UNAVAILABLE, detail)
    if await connection.fetchval("SHOW default_transaction_read_only") == "on":
        detail = (
            f"The database at {address.shown} is read-only, because default_transaction_read_only is set for the "
            "server, the database or the role. Run ALTER DATABASE NAME (or ALTER ROLE NAME, ALTER SYSTEM) RESET "
            "default_transaction_read_only."
        )
        raise Error(Code.UNAVAILABLE, detail)


async def _version(connection: asyncpg.Connection[Any]) -> int:
    return await connection.fetchval("SELECT max(version) FROM schema_version") or 0


def _refuse_newer(address: Address, version: int, newest: int) -> None:
    if version > newest:
        detail = f"The database at {address.shown} was written by a newer safelight; start that version instead."
        raise Error(Code.UNAVAILABLE, detail)
