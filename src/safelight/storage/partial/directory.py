"""Partial uploads in a directory: coordinate calls. `files` reads and writes the files."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from safelight.errors import Code, Error
from safelight.files.opening import opened
from safelight.steady import Ages
from safelight.storage.directory.store import DirectoryStore
from safelight.storage.files import BLOCK, Block, check_place, guarded
from safelight.storage.partial.background import Background
from safelight.storage.partial.files import Append, PartialFiles
from safelight.storage.partial.refusals import busy, check_whole, closed
from safelight.storage.partial.shares import Shares
from safelight.storage.partial.store import PartialLimits
from safelight.wire import Blob, NewPartial, Partial

log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 8


class PartialDirectory:
    """A `PartialStore` in a directory that only one process uses."""

    def __init__(
        self, root: Path, blobs: DirectoryStore, limits: PartialLimits, ages: Ages, threads: ThreadPoolExecutor
    ) -> None:
        self._files = PartialFiles(root, limits.keep)
        self._root, self._opened = root, -1
        self._blobs = blobs
        self._keep = limits.keep
        self._ages = ages
        self._threads = threads
        self._shares = Shares(limits.count)
        self._opening: dict[str, asyncio.Task[Partial]] = {}
        """Uploads that do not exist yet; a request that is repeated meanwhile waits for them."""
        self._busy: dict[str, int | None] = {}
        """Uploads that a call is changing, with the offset at which an append began."""
        self._held: dict[str, str] = {}
        """The blobs of finished uploads, which are held until the upload is closed or deleted."""
        self._adopted = False
        """Whether the bytes of an upload become a blob by a rename. Otherwise they are copied."""
        self._background = Background()

    @classmethod
    @asynccontextmanager
    async def at(
        cls, root: Path, blobs: DirectoryStore, limits: PartialLimits, ages: Ages | None = None
    ) -> AsyncIterator[PartialDirectory]:
        """Open or create the directory until the context ends; meanwhile, delete expired uploads."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="partials") as threads:
            store = cls(root, blobs, limits, ages or Ages(), threads)
            for found, digest in await store._run(store._files.prepare):
                store._shares.add(found.id, found.size, found.metadata)
                if digest is not None:
                    store._hold(found.id, digest)
            store._adopted = await store._run(blobs.can_adopt, root)
            store._opened = await store._run(os.open, root, os.O_RDONLY | os.O_CLOEXEC)
            try:
                async with store._background.sweeping(store.expire, limits.keep):
                    yield store
            finally:
                os.close(store._opened)

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload; see the contract."""
        name = new.id or secrets.token_hex(16)
        opening = self._opening.get(name)
        if opening is None:
            if name in self._shares:
                return await self.get(name)
            self._shares.check(new)
            self._shares.add(name, new.size, new.metadata)
            # This continues if the call is cancelled, as its thread does, so that the upload counts if it is opened.
            opening = self._opening[name] = self._background.end(self._open(name, new))
        return await asyncio.shield(opening)

    async def _open(self, name: str, new: NewPartial) -> Partial:
        try:
            return await self._run(self._create, name, new)
        except BaseException:
            self._shares.remove(name)
            raise
        finally:
            del self._opening[name]

    async def get(self, id: str) -> Partial:
        """Return an upload; see the contract."""
        return await self._run(self._files.get, id, self._busy.get(id))

    async def append(
        self,
        id: str,
        offset: int,
        chunks: AsyncIterable[bytes],
        *,
        checksum: str | None = None,
        holder: str = "",  # noqa: ARG002 - there is no other instance
    ) -> Partial:
        """Append bytes; see the contract."""
        self._take(id)
        opening = asyncio.ensure_future(self._run(self._files.open, id, offset, checksum))
        writing: asyncio.Future[None] | None = None
        failure: Exception | None = None
        try:
            append = await asyncio.shield(opening)
            self._busy[id] = offset
            async for chunk in chunks:
                append.gather(chunk)
                if append.waiting >= BLOCK:
                    writing = asyncio.ensure_future(self._run(self._write, append, append.handed()))
                    await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._end(id, opening, writing, whole=False)
            raise
        except Exception as error:  # noqa: BLE001 - raised again below, once the bytes are safe
            failure = error
        ended = self._end(id, opening, writing, whole=failure is None)
        if failure is None:
            return await asyncio.shield(ended)
        await asyncio.wait([ended])
        raise failure

    async def finish(self, id: str) -> Blob:
        """Store a complete upload as a blob; see the contract."""
        # What changes the files continues if the call is cancelled, as its thread does.
        if self._adopted:
            return await asyncio.shield(self._background.end(self._adopt(id)))
        with self._alone(id):
            found = await self._run(self._files.get, id)
            if found.outcome:
                raise closed(found.offset)
            check_whole(found.offset, found.size)
            stored = await self._blobs.put(self._read(id))
            return Blob(digest=stored.digest, size=stored.size)

    async def _adopt(self, id: str) -> Blob:
        with self._alone(id):
            finished = await self._run(self._files.finish, id)
            self._hold(id, finished.blob.digest)
            if finished.hashed is None:
                await self._blobs.refresh(finished.blob)
            else:
                await self._blobs.adopt(finished.path, limit=finished.blob.size, hashed=finished.hashed)
            return finished.blob

    async def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome of an upload; see the contract."""
        return await asyncio.shield(self._background.end(self._close_upload(id, outcome)))

    async def _close_upload(self, id: str, outcome: str) -> Partial:
        with self._alone(id):
            ended = await self._run(self._files.close, id, outcome)
            self._forget(id)
            return ended

    async def delete(self, id: str) -> None:
        """Delete an upload; see the contract."""
        await asyncio.shield(self._background.end(self._delete(id)))

    async def _delete(self, id: str) -> None:
        try:
            await self._run(self._files.delete, id)
        except Error as error:
            if error.code is Code.NOT_FOUND and id not in self._opening:
                self._forget(id)
            raise
        self._forget(id)

    async def expire(self) -> int:
        """Delete expired uploads; see the contract."""
        removed = 0
        before = self._ages.before("partials", self._keep)
        if before is None:
            return 0
        await self._run(self._check_place)
        for found in await self._run(self._files.expired, before):
            with suppress(Error), self._alone(found):  # skip one that is being changed, or was deleted
                if await self._run(self._files.delete_expired, found, before):
                    self._forget(found)
                    removed += 1
        return removed

    def _hold(self, id: str, digest: str) -> None:
        if id in self._shares and id not in self._held:  # it may have been deleted meanwhile
            self._held[id] = digest
            self._blobs.hold(digest)

    def _forget(self, id: str) -> None:
        """Release the blob and place of a closed or deleted upload. Calling it again changes nothing."""
        self._shares.remove(id)
        if (digest := self._held.pop(id, None)) is not None:
            self._blobs.release(digest)

    def _take(self, id: str) -> None:
        if id in self._busy:
            raise busy()
        self._busy[id] = None

    @contextmanager
    def _alone(self, id: str) -> Iterator[None]:
        self._take(id)
        try:
            yield
        finally:
            del self._busy[id]

    def _end(
        self, id: str, opening: asyncio.Future[Append], writing: asyncio.Future[None] | None, *, whole: bool
    ) -> asyncio.Task[Partial]:
        """Finish an append in a task of its own, which continues if the call is cancelled, as its thread does."""

        async def end() -> Partial:
            try:
                append = await opening
                if writing is not None:
                    await asyncio.wait([writing])
                return await self._run(self._close, append, whole)
            finally:
                del self._busy[id]

        return self._background.end(end())

    async def _read(self, id: str) -> AsyncIterator[bytes]:
        path = self._files.bytes_of(id)
        async with opened(lambda: guarded(FileIO, path), self._threads) as file:
            while data := await self._run(file.read, BLOCK):
                yield data

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        call = functools.partial(self._call, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded, call)

    # What follows runs in threads.

    def _call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function; what it does not find is missing only where the directory is the one that was opened."""
        try:
            return function(*arguments)
        except Error as error:
            if error.code is Code.NOT_FOUND:
                self._check_place()
            raise

    def _check_place(self) -> None:
        check_place(self._root, self._opened)

    def _create(self, name: str, new: NewPartial) -> Partial:
        free, copies = self._blobs.free(), 1
        if not self._adopted:  # at the end it is stored twice, as a partial upload and as a blob
            free, copies = self._files.free(), 2
        if free is not None and free < copies * new.size:
            raise Error(Code.STORAGE_FULL, "The upload does not fit on the disk of storage. Make room on it.")
        created = self._files.create(name, new)
        self._check_place()
        return created

    def _write(self, append: Append, block: Block) -> None:
        if self._adopted:
            self._blobs.room.check(sum(map(len, block)))
        append.write(block)

    def _close(self, append: Append, whole: bool) -> Partial:  # noqa: FBT001 - as `close` has it
        append.close(whole=whole)
        return self._files.get(append.id)
