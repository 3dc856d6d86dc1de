"""Check a backup, and restore it into the data directories of services that do not run."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from safelight.cli.backup import owners
from safelight.cli.backup.archive import (
    Archive,
    Database,
    Manifest,
    existing_file,
    file_digest,
    flush_directory,
    lasting,
    pages,
    remove_file,
)
from safelight.cli.backup.copying import Copying, Open
from safelight.cli.printing import counted
from safelight.errors import Code, Error
from safelight.keyvaluestore.sqlite import SqliteStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.files import TextFile, guarded
from safelight.storage.identity import MARK, read_id


@dataclass(frozen=True, kw_only=True)
class Places:
    """The data directories of the services."""

    db: Path
    storage: Path
    keyvaluestore: Path

    @property
    def database(self) -> Path:
        return self.db / "tasks.sqlite"

    @property
    def entries(self) -> Path:
        return self.keyvaluestore / "keyvaluestore.sqlite"


async def check(root: Path) -> Manifest:
    """Read and check every byte that a restoration needs. Raises DAMAGED_BLOB, NOT_FOUND, UNAVAILABLE."""
    archive = Archive(root)
    manifest = archive.read()
    await asyncio.to_thread(archive.check_plain, manifest)
    await _check_digest(archive, manifest)
    database = await asyncio.to_thread(Database, archive.database(manifest.db_digest))
    try:
        await asyncio.to_thread(database.check)
        async with _reading(archive.storage) as store:
            reading = Copying(_nowhere, store.named, store, verify=True)
            async for page in pages(database):
                await reading.copy(page)
    finally:
        await asyncio.to_thread(database.close)
    _check_missing(reading, manifest)
    return manifest


async def restore(root: Path, places: Places) -> tuple[Manifest, int]:
    """Restore a backup into empty data directories; return its manifest and how many blobs were copied.

    The database and the entries are put in place at the end, so an interrupted restoration can be repeated. The
    database gets a new identity. Raises CONFLICT if there is data, DAMAGED_BLOB, NOT_FOUND, STORAGE_FULL.
    """
    archive = Archive(root)
    manifest = archive.read()
    for place in (places.database, places.entries):
        if file := existing_file(place):
            raise Error(Code.CONFLICT, f"{file} already exists; stop the service and move its data away first.")
    for directory in (places.db, places.storage, places.keyvaluestore):
        owners.make(directory)
    await asyncio.to_thread(archive.check_plain, manifest)
    _check_room(places.db, manifest)
    await _check_digest(archive, manifest)
    new, entries = (path.with_name(f".{path.name}.new") for path in (places.database, places.entries))
    for left in (new, entries):
        remove_file(left)
    await asyncio.to_thread(shutil.copyfile, archive.database(manifest.db_digest), new)
    database = await asyncio.to_thread(lambda: Database(new, readonly=False))
    try:
        await asyncio.to_thread(database.check)
        async with _reading(archive.storage) as kept, DirectoryStore.at(places.storage) as target:
            copying = Copying(_from(kept), kept.named, target)
            async for page in pages(database):
                await copying.copy(page)
        _check_missing(copying, manifest)
        known = await asyncio.to_thread(guarded, read_id, TextFile(places.storage / MARK))
        await asyncio.to_thread(database.become_another, known)
    finally:
        await asyncio.to_thread(database.close)
    async with SqliteStore.open(entries) as store:
        for entry in lasting(manifest.entries):
            await store.set(entry.key, entry.value, instance=entry.instance)
    await asyncio.to_thread(owners.give, places.db, places.storage, places.keyvaluestore)
    await asyncio.to_thread(_put_in_place, {entries: places.entries, new: places.database})
    return manifest, copying.copied


async def _check_digest(archive: Archive, manifest: Manifest) -> None:
    path = archive.database(manifest.db_digest)
    if await asyncio.to_thread(file_digest, path) != manifest.db_digest:
        raise Error(Code.DAMAGED_BLOB, f"{path} is damaged: its bytes differ from those that were written.")


def _check_room(directory: Path, manifest: Manifest) -> None:
    if shutil.disk_usage(directory).free < manifest.db_size:
        detail = f"The database has {manifest.db_size} bytes, more than {directory} has room for."
        raise Error(Code.STORAGE_FULL, detail)


def _check_missing(copying: Copying, manifest: Manifest) -> None:
    """Refuse a backup that lacks blobs, unless storage lacked them already when it was taken. Raises DAMAGED_BLOB."""
    lost = sorted(copying.missing - set(manifest.missing))
    if lost:
        told = f"{counted(len(lost), 'blob')} missing or damaged in the backup; the first is {lost[0]}."
        raise Error(Code.DAMAGED_BLOB, told)


@asynccontextmanager
async def _reading(storage: Path) -> AsyncIterator[DirectoryStore]:
    """Open the blobs of a backup, whose disk may be read-only. Raises UNAVAILABLE for a file that cannot be read."""
    try:
        async with DirectoryStore.at(storage, readonly=True) as store:
            yield store
    except Error as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or not str(cause.filename).startswith(str(storage)):
            raise
        raise Error(error.code, f"{cause.filename} cannot be read: {cause.strerror}.") from error


def _from(store: DirectoryStore) -> Open:
    @asynccontextmanager
    async def opened(digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with store.open(digest, verify=True) as blob:
            yield blob.chunks()

    return opened


def _nowhere(digest: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    """Raise NOT_FOUND, because there is no other copy of a missing or damaged blob."""
    raise Error(Code.NOT_FOUND, f"There is no blob {digest}.")


def _put_in_place(files: dict[Path, Path]) -> None:
    """Flush files, then rename each to its place, so that little time passes between the first and the last."""
    for new in files:
        descriptor = os.open(new, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for new, path in files.items():
        new.replace(path)
        flush_directory(path.parent)
