"""Classify failures of the server: they affect one call, all calls of a commit, or the session."""

from __future__ import annotations

import ssl
from enum import Enum

import asyncpg

from safelight.errors import Code, Error


class Concerns(Enum):
    """What a failure affects."""

    CALL = "call"
    """One call, whose statement or values the server refuses. The other calls of the commit run again without it."""
    COMMIT = "commit"
    """All calls of the commit, which may succeed if they run again (a deadlock, a lock timeout)."""
    SESSION = "session"
    """The session, which is lost: the server was stopped or is now a standby, or the network failed."""
    SERVER = "server"
    """The server, which cannot write: its disk is full."""


class Postponed(Exception):  # noqa: N818 - not an error of any call
    """The server refuses a statement of several calls; run them one by one to find out which call is to blame."""


_OF_ONE_CALL = {"0A", "21", "22", "23", "42", "44", "54"}
_OF_THE_COMMIT = {"40", "55"}
_PASSING = (
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.TooManyConnectionsError,
)
READ_ONLY = (
    "The database is read-only: it became a standby, or default_transaction_read_only was set. Name all hosts of the "
    "cluster, or reset this setting."
)
_STATEMENT_TIMEOUT = "57014"


def concerns(error: BaseException) -> Concerns | None:
    """Return what a failure affects, or None if it is not a failure of the server."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state[:2] in _OF_ONE_CALL or state == _STATEMENT_TIMEOUT:
            return Concerns.CALL
        if state[:2] in _OF_THE_COMMIT:
            return Concerns.COMMIT
        return Concerns.SERVER if state[:2] == "53" else Concerns.SESSION
    if isinstance(error, asyncpg.DataError):  # a value that the driver refuses before the server sees it
        return Concerns.CALL
    # After an error of the driver itself, the state of its connection is unknown.
    if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)):
        return Concerns.SESSION
    return Concerns.SESSION if isinstance(error, Error) and error.code is Code.UNAVAILABLE else None


def is_passing(error: BaseException | None) -> bool:
    """Return whether a server that could not be reached may be reached later, with the same settings."""
    if isinstance(error, (ssl.SSLError, FileNotFoundError, PermissionError)):
        return False
    return isinstance(error, (OSError, TimeoutError, *_PASSING))


def told(error: BaseException) -> Error:
    """Return the error for the caller."""
    if isinstance(error, Error):
        return error
    if isinstance(error, asyncpg.DiskFullError):
        return Error(Code.STORAGE_FULL, "The disk of the database is full: make room on it.", retry_after=5)
    if isinstance(error, asyncpg.QueryCanceledError):
        detail = "The database took too long for this; ask for less, or try again later."
        return Error(Code.UNAVAILABLE, detail, retry_after=5)
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return Error(Code.UNAVAILABLE, READ_ONLY, retry_after=1)
    return Error(Code.UNAVAILABLE, f"The database failed: {error}.", retry_after=1)
