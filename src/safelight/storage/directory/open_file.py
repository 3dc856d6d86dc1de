"""The file of a blob, open for reading."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO

from safelight.errors import Code, Error
from safelight.storage.files import BLOCK
from safelight.storage.verified import Verified
from safelight.wire import Blob


class OpenFile:
    """An `OpenBlob` of a file."""

    def __init__(
        self, blob: Blob, file: FileIO, threads: ThreadPoolExecutor, unverified: Verified | None = None
    ) -> None:
        """Read a file. If its bytes are to be verified while they are streamed, `unverified` receives the result."""
        self.blob = blob
        self.file = file if unverified is None else None
        self._file = file
        self._threads = threads
        self._unverified = unverified

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def chunks(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream bytes; see the contract."""
        end = self.blob.size if end is None else min(end, self.blob.size)
        chunks = self._chunks(start, end)
        if self._unverified is None or (start, end) != (0, self.blob.size):
            return chunks
        return self._unverified.passing(self.blob, chunks, self._in_thread)

    async def _in_thread(self, function: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _chunks(self, start: int, end: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while start < end:
            block = await loop.run_in_executor(
                self._threads, os.pread, self._file.fileno(), min(BLOCK, end - start), start
            )
            if not block:
                raise Error(Code.DAMAGED_BLOB, f"The blob {self.blob.digest} is shorter than it should be.")
            yield block
            start += len(block)
