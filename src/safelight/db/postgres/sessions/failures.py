"""What a failure of the server means: for one call, for all of a commit, or for the session."""

from __future__ import annotations

from enum import Enum

import asyncpg

from safelight.errors import Code, Error


class Concerns(Enum):
    """Whom a failure concerns."""

    CALL = "call"
    """One call, whose statement or values the server refuses. The others of the commit are run again without it."""
    COMMIT = "commit"
    """All calls of the commit; run again, they may succeed (a deadlock, a lock that was not to be had in time)."""
    SESSION = "session"
    """The session, which is lost: the server was stopped or is a standby now, or the network failed."""
    SERVER = "server"
    """The server, which can do nothing now: its disk is full."""


class Postponed(Exception):  # noqa: N818 - not an error of any call
    """The server refuses statements of several calls; run them one by one to learn whose it is."""


_OF_ONE_CALL = {"0A", "21", "22", "23", "42", "44", "54"}
_OF_THE_COMMIT = {"40", "55"}
_STATEMENT_TIMEOUT, _READ_ONLY = "57014", "25006"


def concerns(error: BaseException) -> Concerns | None:
    """Say whom a failure concerns; None if it is not one of the server."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state[:2] in _OF_ONE_CALL or state == _STATEMENT_TIMEOUT:
            return Concerns.CALL
        if state[:2] in _OF_THE_COMMIT:
            return Concerns.COMMIT
        return Concerns.SERVER if state[:2] == "53" else Concerns.SESSION
    if isinstance(error, asyncpg.DataError):  # a value that the driver refuses before the server sees it
        return Concerns.CALL
    # The driver's own errors leave its connection in a state that it does not know.
    if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)):
        return Concerns.SESSION
    return Concerns.SESSION if isinstance(error, Error) and error.code is Code.UNAVAILABLE else None


def told(error: BaseException) -> Error:
    """Return what the caller is told."""
    if isinstance(error, Error):
        return error
    if isinstance(error, asyncpg.DiskFullError):
        return Error(Code.STORAGE_FULL, "The disk of the database is full: make room on it.", retry_after=5)
    if isinstance(error, asyncpg.QueryCanceledError):
        detail = "The database took too long for this; ask for less, or try again later."
        return Error(Code.UNAVAILABLE, detail, retry_after=5)
    return Error(Code.UNAVAILABLE, f"The database failed: {error}.", retry_after=1)
