"""SQLite files that belong to one process, are durable at each commit, and have the current schema."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from safelight.errors import Code, Error
from safelight.sql import scripts

log = logging.getLogger(__name__)

_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE; -- before WAL is entered: then WAL needs no shared memory, which not every guest has
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
"""

_STATISTICS = {
    ("table", name, name, f"CREATETABLE{name}({columns})")
    for name, columns in (("sqlite_stat1", "tbl,idx,stat"), ("sqlite_stat4", "tbl,idx,neq,nlt,ndlt,sample"))
}
"""SQLite's internal tables."""

STOP = "Stop the service that uses it, or leave out --from to copy out of the running system."
"""What an operator does about a store that a command cannot open."""

_COPIED_PAGES = 256
"""Pages in one step of a copy: 1 MiB, which blocks others for a millisecond or two."""


class Place:
    """Where an open database lies. What is committed to a file that is not there any more would be lost at the end.

    Its disk may be unmounted, or somebody has deleted it, or put another file in its place.
    """

    def __init__(self, path: Path) -> None:
        """Take the path of a file that SQLite has opened, and keeps open."""
        self._path, self._log_path = str(path), f"{path}-wal"
        self._file, self._log = _found(self._path), _found(self._log_path)

    def check(self) -> None:
        """Raise UNAVAILABLE if the file is not the one that was opened."""
        if _found(self._path) != self._file:
            detail = (
                f"{self._path} is not the file that was opened: mount its disk again, or move it back. "
                "What it had can still be saved by a back-up (safelight backup)."
            )
            raise Error(Code.UNAVAILABLE, detail)

    def has_lost_its_log(self) -> bool:
        """Return whether the write-ahead log is gone while the file is there: then only this process has its pages."""
        return _found(self._log_path) != self._log is not None and _found(self._path) == self._file


class Log:
    """The write-ahead log of an open database, which may have a hole after a flush that failed.

    The kernel drops what it could not write, reports that once, and the next flush succeeds. SQLite would then commit
    behind the hole, and its recovery after a power cut reads the log only up to there. The log of an earlier process
    may have a hole as well, since nobody knows whether all its flushes succeeded.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Doubt the log of an earlier process."""
        self._connection = connection
        self._doubted = True

    def doubt(self) -> None:
        """Trust the log no more, since a flush of it may have failed."""
        self._doubted = True

    def renew(self) -> None:
        """Write all that a doubted log has into the database, and begin the log anew. Raises sqlite3.Error."""
        if not self._doubted:
            return
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("the write-ahead log is in use")
        self._doubted = False


def connect(
    path: Path, package: str, *, pragmas: str = "", timeout: float = 0.5, foreign: bool = False
) -> sqlite3.Connection:
    """Open or create the file, and migrate it to the newest schema of a package (see `safelight.sql.scripts`).

    `pragmas` are statements to run first; `timeout` is how many seconds to wait for another process to release the
    file. Any one thread at a time may use the connection. Raises CONFLICT if it does not, UNAVAILABLE with the
    reason, and DAMAGED_BLOB for a `foreign` (untrusted) file whose schema is not that of its version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=200
        )
        try:
            connection.executescript(_PRAGMAS + pragmas)
            if foreign:
                _check_schema(connection, path, package)
            _migrate(connection, path, package)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            advice = f". {STOP}" if foreign else "; give this one its own --data."
            detail = f"{path} is in use by another process{advice}"
            raise Error(Code.CONFLICT, detail) from None
        damaged = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))
        advice = " Restore a backup of it (safelight restore)." if damaged and not foreign else ""
        raise Error(Code.UNAVAILABLE, f"{path} cannot be opened: {error}.{advice}") from error
    return connection


def read(path: Path, package: str, *, foreign: bool = False) -> sqlite3.Connection:
    """Open a file that nobody changes, for reading; see `connect` for `foreign`.

    Raises UNAVAILABLE, also if its schema is not the newest.
    """
    try:
        address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise Error(Code.UNAVAILABLE, f"{path} cannot be opened: {error}.") from error
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        connection.close()
        raise Error(Code.UNAVAILABLE, f"{path} cannot be read: {error}.") from error
    if version != len(scripts.migrations(package)):
        connection.close()
        raise Error(Code.UNAVAILABLE, f"{path} was written by another version of safelight; use that one.")
    if foreign:
        try:
            _check_schema(connection, path, package)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise Error(Code.UNAVAILABLE, f"{path} cannot be read: {error}.") from error
            raise
    return connection


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Check the whole file. Raises DAMAGED_BLOB."""
    try:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
    except sqlite3.Error as error:
        found = [str(error)]
    if found != ["ok"]:
        raise Error(Code.DAMAGED_BLOB, f"{path} is damaged: {'; '.join(found)}.")


def copy(connection: sqlite3.Connection, target: Path, between: Callable[[], None]) -> None:
    """Copy an open file to `target`, durably. `between` is called after each step, and may use the connection.

    Its commits become part of the copy, which is consistent with the moment of the last step.
    """

    def progress(status: int, _remaining: int, _total: int) -> None:
        if status != sqlite3.SQLITE_DONE:
            between()

    copied = sqlite3.connect(target, isolation_level=None)
    try:
        copied.execute("PRAGMA synchronous = OFF")  # it is flushed once, at the end
        connection.backup(copied, pages=_COPIED_PAGES, progress=progress)
    finally:
        copied.close()
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def migrated(path: Path, package: str, target: Path) -> Path:
    """Return a file that may be opened and migrated: a copy at `target` if it has an older schema, or else itself.

    Raises DAMAGED_BLOB for a schema that is not safelight's, before it is copied, so that the error names the original.
    """
    try:
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            if connection.execute("PRAGMA user_version").fetchone()[0] >= len(scripts.migrations(package)):
                return path
            _check_schema(connection, path, package)
            copy(connection, target, lambda: None)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL"):
            raise
        return path  # reported when it is opened
    return target


def _found(path: str) -> tuple[int, int] | None:
    """Return which file a path leads to; None if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - it is called at each commit, and takes half the time of a Path's
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _check_schema(connection: sqlite3.Connection, path: Path, package: str) -> None:
    """Check that a file has only the tables and indexes of its version, and no triggers or views."""
    steps = scripts.migrations(package)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    with closing(sqlite3.connect(":memory:")) as model:
        for script in steps[: max(0, version)]:
            model.executescript(script)
        ours, theirs = _schema(model), _schema(connection)
    if version > len(steps) and {name for _, name, _, _ in ours & theirs}:
        return  # a newer version of this database, reported as such by the caller
    for kind, name, _, _ in (theirs - ours - _STATISTICS) | (ours - theirs):
        detail = f"{path} was not written by safelight: the {kind} {name} is not that of its version."
        raise Error(Code.DAMAGED_BLOB, detail)


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str, str]]:
    """Return all objects with their definitions, normalised, since quoting and layout depend on SQLite's version."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return {(kind, name, table, re.sub(r'[\s"]+', "", str(text))) for kind, name, table, text in rows}


def _migrate(connection: sqlite3.Connection, path: Path, package: str) -> None:
    """Migrate a file of any version to the newest one, in one transaction.

    If a step fails, the file stays as it was, so the version that wrote it can still be started.
    """
    steps = scripts.migrations(package)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(steps):
        raise Error(Code.UNAVAILABLE, f"{path} was written by a newer safelight; start that version instead.")
    if version == len(steps):
        return
    log.info("Migrating %s from version %d to %d", path.name, version, len(steps))
    script = "\n".join(steps[version:])
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {len(steps)};\nCOMMIT;")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.rollback()
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise
        detail = (
            f"{path} cannot be migrated, and stays as it was: {error}. Start the version of safelight that wrote it."
        )
        raise Error(Code.UNAVAILABLE, detail) from error


def wrapped(error: Exception, what: str) -> Error:
    """Return the service's error for a failure of SQLite; `what` names the database in its sentence."""
    if isinstance(error, Error):
        return error
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL"):
        return Error(Code.STORAGE_FULL, f"The disk of {what} is full: make room on it.", retry_after=5)
    return Error(Code.UNAVAILABLE, f"{what.capitalize()} failed: {error}.")
