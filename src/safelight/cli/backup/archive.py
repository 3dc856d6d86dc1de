"""The directory of a backup.

    manifest.json     what the backup holds; written last
    db-….sqlite       the database, named by the SHA-256 of its bytes
    storage/          the blobs and names, as storage keeps them (`storage.directory`)

A backup into a directory that already holds one copies only new blobs. The old manifest is valid until the new one is
in place.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from safelight.client.discovery import REGISTRATION_KEYS
from safelight.db.calls.tasks import reading
from safelight.db.commit.transaction import Transaction
from safelight.db.sqlite import memory
from safelight.db.sqlite.connection import PACKAGE, Connection
from safelight.errors import MALFORMED, Code, Error
from safelight.sql import sqlite
from safelight.storage.files import read_plainly
from safelight.wire import Entry, Record, Reference

FORMAT = 1
_MANIFEST = "manifest.json"
_DATABASE = re.compile(r"db-[0-9a-f]{64}\.sqlite|\.db-new")
_WRITTEN = re.compile(rf"{_DATABASE.pattern}|\.?manifest\.json|storage|lost\+found")
"""The names in the directory of a backup, which may be a disk of its own."""
_PAGE = 10_000
_LONGEST_MANIFEST = 64 << 20
NO_ROOM = {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}
"""What SQLite reports when the disk is full; the second, when the limit of a file's size is reached."""


class Manifest(Record, frozen=True, kw_only=True):
    """The contents of a backup. `missing` lists blobs that tasks refer to but storage had lost or damaged."""

    format: int = FORMAT
    created: float
    safelight: str
    db: str
    """The identity of the database that was copied."""
    db_digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]
    db_size: int
    tasks: int
    last_event: int
    blobs: int
    names: int
    size: int
    """Bytes of the blobs that tasks refer to."""
    missing: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    """The entries that people have set in the key-value store; registrations are left out."""


class _Version(msgspec.Struct):
    """What every manifest says, whatever else it does."""

    format: int = FORMAT


class Archive:
    """A backup's directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = root / "storage"

    def database(self, digest: str) -> Path:
        """Return the path of a database by the digest of its bytes."""
        return self.root / f"db-{digest}.sqlite"

    def prepare(self) -> Manifest | None:
        """Make the directory of a new backup. Raises CONFLICT if it has files that no backup has written.

        One with a backup, also with an interrupted one, is used again. Return the manifest of a backup that it has.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        foreign = sorted(path.name for path in self.root.iterdir() if not _WRITTEN.fullmatch(path.name))
        if foreign:
            detail = (
                f"{self.root} has other files, such as {foreign[0]}. Name an empty directory, or one with a backup."
            )
            raise Error(Code.CONFLICT, detail)
        return self.read() if (self.root / _MANIFEST).exists() else None

    def read(self) -> Manifest:
        """Return the manifest. Raises NOT_FOUND, DAMAGED_BLOB, INVALID_REQUEST for one of a newer version."""
        path = self.root / _MANIFEST
        try:
            with read_plainly(path) as file:
                if os.fstat(file.fileno()).st_size > _LONGEST_MANIFEST:
                    raise Error(Code.DAMAGED_BLOB, f"{path} has more than {_LONGEST_MANIFEST} bytes.")
                content = file.read(_LONGEST_MANIFEST)
            # A newer manifest may have other fields, so look at its format first.
            if msgspec.json.decode(content, type=_Version).format != FORMAT:
                raise Error(Code.INVALID_REQUEST, f"{self.root} was written by a newer safelight; use that version.")
            return msgspec.json.decode(content, type=Manifest)
        except FileNotFoundError:
            raise Error(Code.NOT_FOUND, f"{self.root} holds no backup: it has no manifest.json.") from None
        except (OSError, *MALFORMED) as error:
            raise Error(Code.DAMAGED_BLOB, f"{path} is damaged: {error}.") from None

    def check_plain(self, manifest: Manifest) -> None:
        """Check that the backup contains only files and directories.

        A link could lead out of it, and a device never ends.

        Raises NOT_FOUND, DAMAGED_BLOB.
        """
        database = self.database(manifest.db_digest)
        try:
            with read_plainly(database) as file:
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            raise Error(Code.NOT_FOUND, f"{database} is missing from the backup.") from None
        except OSError as error:
            raise Error(Code.DAMAGED_BLOB, f"{database} is damaged: {error}.") from None
        if size != manifest.db_size:
            raise Error(Code.DAMAGED_BLOB, f"{database} is damaged: it has {size} bytes, not {manifest.db_size}.")
        if self.storage.is_symlink():
            raise Error(Code.DAMAGED_BLOB, f"{self.storage} is a link.")
        for directory, directories, files in os.walk(self.storage):
            for name in (*directories, *files):
                path = os.path.join(directory, name)  # noqa: PTH118 - a backup has many
                if not stat.S_ISREG(mode := os.lstat(path).st_mode) and not stat.S_ISDIR(mode):
                    raise Error(Code.DAMAGED_BLOB, f"{path} is neither a file nor a directory.")

    def write(self, manifest: Manifest) -> None:
        """Put a manifest in place, durably, and delete databases that it does not name."""
        new = self.root / ".manifest.json"
        with new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.root / _MANIFEST)
        flush_directory(self.root)
        for old in self.root.iterdir():
            if _DATABASE.fullmatch(old.name) and old != self.database(manifest.db_digest):
                old.unlink()


class Database:
    """A copy of the database that nobody changes. It returns references in pages, as db does.

    It is untrusted, so it must have the schema of its version, and rows that db could have written.
    """

    def __init__(self, path: Path, *, readonly: bool = True) -> None:
        """Open it. Without `readonly`, it is brought to the newest schema. Raises UNAVAILABLE, DAMAGED_BLOB."""
        self._path = path
        self._connection = Connection(path, readonly=readonly, foreign=True)
        try:
            with self._understood():
                self.memory = memory.read(self._connection)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def migrated(cls, path: Path, copy: Path) -> Database:
        """Open one of any version. An older one is copied to `copy` first, so that its version can still use it."""
        return cls(sqlite.migrated(path, PACKAGE, copy), readonly=False)

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def check(self) -> None:
        """Check the whole file. Raises DAMAGED_BLOB."""
        self._connection.check()

    def become_another(self, store: str) -> None:
        """Give the database a new identity, so that readers of its events notice that it went back in time.

        It knows the store of blobs with the id `store`, to which it has been restored, or if that is "", the first one
        that asks.
        """
        with self._usable():
            self._connection.run("set_meta", "id", os.urandom(16).hex())
            self._connection.run("set_meta", "store", store)

    def references(self, after: int) -> Reference:
        """Return what one page of tasks refers to. Raises DAMAGED_BLOB."""
        with self._understood():
            return reading.referenced(Transaction(self._connection, self.memory, {}, 0), after, _PAGE)

    def rows(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a statement."""
        with self._usable():
            yield from self._connection.rows(statement)

    @contextmanager
    def writing(self) -> Iterator[Callable[[str, Sequence[Sequence[Any]]], None]]:
        """Yield a function that runs a statement for each of some rows, all in one transaction."""
        with self._usable():
            self._connection.begin()
            try:
                yield self._connection.write_rows
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        return list(self.rows(statement))

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Error(Code.DAMAGED_BLOB, f"{self._path} contains rows that db did not write: {error}.") from error

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Translate errors of SQLite, except those of a full disk: `target.writing_to` says where to make room."""
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "") in NO_ROOM:
                raise
            advice = "Check its disk, or restore a backup (safelight restore)."
            raise Error(Code.UNAVAILABLE, f"{self._path} cannot be read or written: {error}. {advice}") from error

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return sum(self.memory.counts.values())


def lasting(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries that people have set.

    Registrations are left out, since a forged one would receive the calls of a service.
    """
    registered = REGISTRATION_KEYS.values()
    return tuple(entry for entry in entries if entry.expires is None and entry.key not in registered)


def flush_directory(path: Path) -> None:
    """Flush the names in a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def existing_file(database: Path) -> Path | None:
    """Return a file of SQLite that is there, or else a log without its file, which would change a new file; or None."""
    files = (database.with_name(f"{database.name}{end}") for end in ("", "-wal", "-journal", "-shm"))
    return next((file for file in files if file.exists()), None)


def remove_file(new: Path) -> None:
    """Remove a file of SQLite that an earlier attempt left, with its log."""
    for left in new.parent.glob(f"{new.name}*"):
        left.unlink()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def pages(database: Database) -> AsyncIterator[Reference]:
    """Yield all references."""
    after: int | None = 0
    while after is not None:
        page = database.references(after)
        yield page
        after = page.next
