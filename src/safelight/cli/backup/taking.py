"""Take a backup of a running system: the database first, then every blob that its tasks refer to."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path

from safelight import __version__
from safelight.cli.backup.archive import Archive, Database, Manifest, lasting, pages
from safelight.cli.backup.copying import Copying, patiently, reading
from safelight.client.db import DbClient
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error, plural
from safelight.files.opening import opened
from safelight.storage.directory import DirectoryStore

_ROUNDS = 3
"""The most rounds of a backup. If a task is deleted after the database was copied, its blob may be collected before it
is copied too. The next round then begins with a new copy of the database. It has few blobs to copy, so this is unlikely
to happen again.
"""
_CHUNK = 1 << 20


async def take(
    root: Path, db: DbClient, storage: StorageClient, keyvaluestore: KeyValueStoreClient
) -> tuple[Manifest, int]:
    """Write a backup into `root`; return its manifest and how many blobs are new.

    Raises what the services raise, and CONFLICT if `root` has other files or a backup of another database. After an
    error an earlier backup in `root` is still valid.
    """
    archive = Archive(root)
    earlier = await asyncio.to_thread(archive.prepare)
    page = await keyvaluestore.entries()
    entries = lasting(page.entries)
    copied = 0
    for last in (False,) * (_ROUNDS - 1) + (True,):
        database, digest, size = await _copy_of(archive, earlier, db)  # first, since db may refuse
        copying = await _copy_blobs(database, storage, archive.storage)
        copied += copying.copied
        if not copying.missing or last:
            break
    manifest = Manifest(
        created=time.time(),
        safelight=__version__,
        db=database.memory.id,
        db_digest=digest,
        db_size=size,
        tasks=database.tasks,
        last_event=database.memory.last_event,
        blobs=copying.blobs,
        names=copying.names,
        size=copying.size,
        missing=tuple(sorted(copying.missing)),
        entries=entries,
    )
    await asyncio.to_thread(archive.write, manifest)
    return manifest, copied


async def _copy_of(archive: Archive, earlier: Manifest | None, db: DbClient) -> tuple[Database, str, int]:
    """Fetch a copy of the database and open it; return its digest and size too.

    Raises CONFLICT if `earlier` is a backup of another database, and may be the last of it: db has a new one when its
    disk is not mounted.
    """
    digest, size = await fetch_database(archive, db)
    path = archive.database(digest)
    database = await asyncio.to_thread(Database, path)
    if earlier is not None and earlier.db != database.memory.id:
        database.close()
        path.unlink()
        detail = (
            f"{archive.root} holds a backup of another database, with {earlier.tasks} {plural(earlier.tasks, 'task')}; "
            f"this one has {database.tasks}. If a disk of db is not mounted, mount it. Otherwise, such as after a "
            "restoration, name another directory, or delete manifest.json there to replace that backup."
        )
        raise Error(Code.CONFLICT, detail)
    return database, digest, size


async def _copy_blobs(database: Database, storage: StorageClient, to: Path) -> Copying:
    """Copy the blobs that the tasks of a database refer to, then close the database."""
    try:
        await asyncio.to_thread(database.check)
        async with DirectoryStore.at(to) as target:
            copying = Copying(reading(storage), storage.named, target)
            async for references in pages(database):
                await copying.copy(references)
        return copying
    finally:
        await asyncio.to_thread(database.close)


async def fetch_database(archive: Archive, db: DbClient) -> tuple[str, int]:
    """Fetch a copy of the database, durably; return its digest and size."""
    new = archive.root / ".db-new"
    try:
        digest, size = await patiently(lambda: _fetch(new, db))
        await asyncio.to_thread(new.replace, archive.database(digest))
    except BaseException:  # on a full disk, its room is needed at once
        new.unlink(missing_ok=True)
        raise
    return digest, size


async def _fetch(new: Path, db: DbClient) -> tuple[str, int]:
    """Write a copy of the database to a file and flush it; return its digest and size."""
    state, size = hashlib.sha256(), 0
    async with opened(lambda: new.open("wb")) as file:
        async with db.backup() as response:
            announced = response.content_length
            async for chunk in response.content.iter_chunked(_CHUNK):
                state.update(chunk)
                size += len(chunk)
                await asyncio.to_thread(file.write, chunk)
        if size != announced:
            raise Error(Code.UNAVAILABLE, "The copy of the database was cut off; try again.")
        await asyncio.to_thread(file.flush)
        await asyncio.to_thread(os.fsync, file.fileno())
    return state.hexdigest(), size
