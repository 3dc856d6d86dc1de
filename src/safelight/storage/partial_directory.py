"""Uploads in pieces, in a directory: who may change what when. The files themselves are `partial_files`'."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TypeVar

from safelight.errors import Code, Error
from safelight.storage.directory import guarded
from safelight.storage.files import PIECE
from safelight.storage.partial import Checksum, PartialLimits
from safelight.storage.partial_files import PartialFiles, Piece
from safelight.storage.store import BlobStore
from safelight.wire import Blob, NewPartial, Partial

log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 8
_SWEEP = 300.0
"""Seconds between two looks for what has expired."""


class PartialDirectory:
    """`PartialStore` in a directory that one process has for itself."""

    def __init__(self, files: PartialFiles, blobs: BlobStore, most: int, threads: ThreadPoolExecutor) -> None:
        self._files = files
        self._blobs = blobs
        self._most = most
        self._threads = threads
        self._count = 0
        self._busy: dict[str, int | None] = {}
        """Uploads that a call changes; while a piece comes, the offset at which it began."""
        self._closing: set[asyncio.Task[Partial]] = set()

    @classmethod
    @asynccontextmanager
    async def at(cls, root: Path, blobs: BlobStore, limits: PartialLimits) -> AsyncIterator[PartialDirectory]:
        """Open the directory, making it if there is none; what has expired is removed while the context lasts."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="partials") as threads:
            store = cls(PartialFiles(root, limits.keep), blobs, limits.count, threads)
            store._count = await store._run(store._files.prepare)
            sweeping = asyncio.create_task(store._sweep(min(_SWEEP, limits.keep)), name="partials")
            try:
                yield store
            finally:
                sweeping.cancel()
                await asyncio.gather(sweeping, *store._closing, return_exceptions=True)

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload; see the contract."""
        if self._count >= self._most:
            sentence = f"{self._count} uploads are open, which is all that storage takes. Try again later."
            raise Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=30)
        free = await self._run(self._files.free)
        if free is not None and free < 2 * new.size:  # at the end it is there twice, as pieces and as a blob
            raise Error(Code.STORAGE_FULL, "The upload does not fit on the disk of storage: make room there.")
        self._count += 1
        try:
            return await self._run(self._files.create, new)
        except BaseException:
            self._count -= 1
            raise

    async def get(self, id: str) -> Partial:
        """Return how far an upload has come; see the contract."""
        return await self._run(self._files.get, id, self._busy.get(id))

    async def append(
        self, id: str, offset: int, chunks: AsyncIterable[bytes], *, checksum: Checksum | None = None
    ) -> Partial:
        """Add a piece; see the contract."""
        self._take(id)
        opening = asyncio.ensure_future(self._run(self._files.open, id, offset, checksum))
        writing: asyncio.Future[None] | None = None
        whole = False
        try:
            piece = await asyncio.shield(opening)
            self._busy[id] = offset
            async for chunk in chunks:
                piece.gather(chunk)
                if len(piece.gathered) >= PIECE:
                    writing = asyncio.ensure_future(self._run(piece.write, piece.handed()))
                    await asyncio.shield(writing)
            whole = True
        finally:
            # On its own, so that the bytes are safe and the upload is free again however this call is broken off:
            # threads go on when a call is cancelled.
            closing = asyncio.create_task(self._close_piece(id, opening, writing, whole=whole))
            self._closing.add(closing)
            closing.add_done_callback(self._closed)
        return await asyncio.shield(closing)

    async def finish(self, id: str) -> Blob:
        """Store the whole as a blob; see the contract."""
        with self._alone(id):
            whole = await self._run(self._files.get, id)
            if whole.outcome or whole.offset != whole.size:
                raise Error(Code.CONFLICT, f"{whole.offset} of {whole.size} bytes have come.", offset=whole.offset)
            stored = await self._blobs.put(self._read(id))
        return Blob(digest=stored.digest, size=stored.size)

    async def close(self, id: str, outcome: str) -> Partial:
        """Write down what became of an upload; see the contract."""
        with self._alone(id):
            closed = await self._run(self._files.get, id)
            return closed if closed.outcome else await self._run(self._files.close, id, outcome)

    async def delete(self, id: str) -> None:
        """Forget an upload; see the contract."""
        await self._run(self._files.delete, id)
        self._count -= 1

    async def expire(self) -> int:
        """Remove what has expired; see the contract."""
        removed = 0
        for found in await self._run(self._files.expired):
            with suppress(Error):  # somebody else removed it
                if found not in self._busy:
                    await self.delete(found)
                    removed += 1
        return removed

    async def _sweep(self, pause: float) -> None:
        while True:
            try:
                if removed := await self.expire():
                    log.info("Removed %d abandoned uploads", removed)
            except Error as error:
                log.warning("Abandoned uploads could not be removed: %s", error.detail)
            await asyncio.sleep(pause)

    def _take(self, id: str) -> None:
        if id in self._busy:
            raise Error(Code.CONFLICT, "A piece of this upload is on its way already. Ask again soon.", busy=True)
        self._busy[id] = None

    @contextmanager
    def _alone(self, id: str) -> Iterator[None]:
        self._take(id)
        try:
            yield
        finally:
            del self._busy[id]

    async def _close_piece(
        self, id: str, opening: asyncio.Future[Piece], writing: asyncio.Future[None] | None, *, whole: bool
    ) -> Partial:
        try:
            piece = await opening
            if writing is not None:
                await asyncio.wait([writing])
            await self._run(partial(piece.close, whole=whole))
        finally:
            del self._busy[id]
        return await self.get(id)

    def _closed(self, task: asyncio.Task[Partial]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("A piece was not taken: %s", error)

    async def _read(self, id: str) -> AsyncIterator[bytes]:
        path = self._files.bytes_of(id)
        with await self._run(FileIO, path) as file:
            while data := await self._run(file.read, PIECE):
                yield data

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded, function, *arguments)
