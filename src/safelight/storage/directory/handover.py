"""Adopt blobs that workers and masters write as files, if they share a file system with storage.

    handover/TOKEN    an empty file, whose name storage chooses at each start
    handover/…        what they write; storage adopts it by name

The token shows them that the directory which they see belongs to the running storage: a copy, an old mount or the
directory of another machine does not have it. Storage hashes and flushes adopted files like any other blob, so a
program that names a missing file, or writes other bytes, does no harm.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from safelight.errors import Code, Error
from safelight.storage.directory.store import DirectoryStore
from safelight.storage.files import guarded
from safelight.storage.store import PutResult
from safelight.wire import SharedDirectory

_NAME = re.compile(r"[0-9a-f]{32}")
_LEFT = 3600.0
"""Seconds after which a file that was not handed over is removed."""


class Handover:
    """The directory into which other programs put files, beside the blobs of a store."""

    def __init__(self, root: Path, store: DirectoryStore) -> None:
        self._root = root
        self._directory = root / "handover"
        self._store = store
        self._token = secrets.token_hex(16)

    @classmethod
    @asynccontextmanager
    async def at(cls, root: Path, store: DirectoryStore) -> AsyncIterator[Handover]:
        """Open or create the directory until the context ends. Files that were left there are removed."""
        made = cls(root, store)
        await asyncio.to_thread(guarded, made._prepare)
        try:
            yield made
        finally:
            with suppress(Error):  # its disk may be unmounted
                await asyncio.to_thread(guarded, made._remove, -1.0)

    async def shared(self) -> SharedDirectory:
        """Return the directory where other programs may read blobs and put files, and its token."""
        return await asyncio.to_thread(guarded, self._shared)

    async def adopt(self, name: str, token: str, *, limit: int) -> PutResult:
        """Store a file of another program as a blob. The file is moved or removed.

        Raises NOT_FOUND if there is no such file, or if the token belongs to another directory; TOO_LARGE;
        STORAGE_FULL.
        """
        if _NAME.fullmatch(name) is None or token != self._token or name == token:
            raise Error(Code.NOT_FOUND, "This storage does not share that file.")
        path = self._directory / name
        try:
            return await self._store.adopt(path, limit=limit)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))
            raise

    def _shared(self) -> SharedDirectory:
        self._remove(_LEFT)
        return SharedDirectory(path=os.path.realpath(self._root), token=self._token)

    def _prepare(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._remove(-1.0)
        (self._directory / self._token).touch()

    def _remove(self, age: float) -> None:
        """Remove files that are older than `age` seconds."""
        with os.scandir(self._directory) as entries:
            for entry in entries:
                status = _status(Path(entry.path))
                kept = entry.is_dir(follow_symlinks=False) or (entry.name == self._token and age >= 0)
                if status is not None and not kept and time.time() - status.st_mtime > age:
                    Path(entry.path).unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
