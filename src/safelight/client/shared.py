"""Exchange blobs as files, without HTTP, if this program shares a file system with storage.

A directory is used only while it has the token of the running storage. The reader checks the digest of what it reads.
If a file is missing or cannot be written, the blob goes over HTTP instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from pathlib import Path

from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.files import writeback
from safelight.wire import SharedDirectory, StoredBlob

log = logging.getLogger(__name__)

_LOOK_AGAIN = 30.0
"""Seconds before storage is asked again for a directory that could not be used."""


class SharedBlobs:
    """Reads blobs of storage as files, and hands files over to storage."""

    def __init__(self, storage: StorageClient) -> None:
        self._storage = storage
        self._shared: SharedDirectory | None = None
        self._looked = -_LOOK_AGAIN
        self._looking = asyncio.Lock()

    async def path(self, digest: str) -> Path | None:
        """Return the path of a blob, or None if it must be fetched."""
        shared = await self._directory()
        return None if shared is None else Path(shared.path, "blobs", digest[:2], digest)

    async def put(self, data: bytes) -> StoredBlob | None:
        """Write bytes as a file and hand it over; return the durable blob, or None if the bytes must be sent."""
        shared = await self._directory()
        if shared is None:
            return None
        name = secrets.token_hex(16)
        path = Path(shared.path, "handover", name)
        handed = False
        try:
            await asyncio.to_thread(_write, path, data)
            blob = await self._storage.adopt(name, shared.token)
            handed = True
        except (OSError, Error) as error:
            if isinstance(error, OSError) or error.code is Code.NOT_FOUND:
                self._shared = None  # another storage is running now, or this directory is gone
            log.debug("A file could not be handed over: %s", error)
            return None
        finally:
            if not handed:
                await asyncio.shield(asyncio.to_thread(_remove, path))
        return blob

    async def _directory(self) -> SharedDirectory | None:
        if self._shared is not None or time.monotonic() - self._looked < _LOOK_AGAIN:
            return self._shared
        async with self._looking:
            if self._shared is None and time.monotonic() - self._looked >= _LOOK_AGAIN:
                try:
                    found = await self._storage.shared()
                    if found is not None and await asyncio.to_thread(_is_ours, found):
                        self._shared = found
                        log.info("Photos and results go by file, in %s", found.path)
                except Error as error:
                    log.debug("storage shares no directory: %s", error)
                self._looked = time.monotonic()
        return self._shared


def _is_ours(shared: SharedDirectory) -> bool:
    """Return whether this program can write into the directory of the running storage."""
    directory = Path(shared.path, "handover")
    try:
        return (directory / shared.token).is_file() and os.access(directory, os.W_OK | os.X_OK)
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        if len(data) >= writeback.LEAST:  # storage first hashes it, and then flushes it
            writeback.start(file.fileno())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s stays until storage removes it: %s", path, error.strerror)
