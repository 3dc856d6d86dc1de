"""A blob store in a directory.

    blobs/ab/abcd…    a blob, in the directory of the first two digits of its digest
    names/12/1234…    a classic name, in a file named by the SHA-256 of the name, so that no name becomes a path
    incoming/…        what is being written; emptied at every start
    lock              locked by the one process that uses the directory; while another one lies there, or none, the
                      disk is not mounted: then nothing is taken to be missing, acknowledged or removed

Bytes are hashed while they are written to `incoming`. The file is then flushed to disk and renamed to its digest, and
the directory is flushed: a blob is either complete or does not exist. A file's modification time says when its bytes
were last stored. Setting it, storing and removing happen under a lock for each directory, so that a garbage collection
never removes a blob that was just stored again. Flushes happen outside that lock: a file that was renamed or whose time
was set is marked until it is flushed, and a call that stores the same bytes meanwhile flushes it too before it
acknowledges them. A start flushes every directory, since a killed process may not have done so.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from safelight.errors import Code, Error
from safelight.files.opening import opened
from safelight.storage.directory.names import older_names, read_name
from safelight.storage.directory.open_file import OpenFile
from safelight.storage.directory.preparing import LOCK, SHARDS, look, prepare
from safelight.storage.directory.probing import can_rename, reads_back
from safelight.storage.directory.room import Room
from safelight.storage.directory.shard import Shard
from safelight.storage.files import Block, Incoming, blocks, check_place, drop_cached, guarded, older, read_plainly
from safelight.storage.store import NAME_PREFIX, PutResult
from safelight.storage.verified import Verified
from safelight.wire import Blob, StorageInfo

T = TypeVar("T")

_THREADS = 16
"""More threads than cores, because threads mostly wait for the disk, which flushes several files at the cost of one."""

_CHECKED_AT_ONCE = 32 << 20
"""Once a day, a blob of at most this many bytes is verified before it is read; a larger one while it is streamed."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class DirectoryStore:
    """A `BlobStore` in a directory that only one process uses."""

    def __init__(self, root: Path, threads: ThreadPoolExecutor, keep_free: int, fresh_for: float) -> None:
        self._blobs, self._names, self._incoming = root / "blobs", root / "names", root / "incoming"
        self._lock, self._locked = root / LOCK, -1
        self._threads = threads
        self.room = Room(self._blobs, keep_free)
        self._fresh_for = fresh_for
        self._shards = {digits: Shard() for digits in SHARDS}
        self._verified = Verified()
        self._held: Counter[str] = Counter()
        """Blobs that unfinished uploads refer to, each with the number of its holders."""

    @classmethod
    @asynccontextmanager
    async def at(
        cls, root: Path, *, keep_free: int = 0, fresh_for: float = 0.0, readonly: bool = False
    ) -> AsyncIterator[DirectoryStore]:
        """Open or create the directory. Refuse blobs that would leave less than `keep_free` bytes free.

        A blob that was stored within the last `fresh_for` seconds is not touched when it is stored again; it counts as
        fresh for that much longer. With `readonly`, the directory must exist and is only read, by several processes if
        need be; nothing may be stored or removed.

        Raises UNAVAILABLE if the directory cannot be used or another process uses it.
        """
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="storage") as threads:
            store = cls(root, threads, keep_free, fresh_for)
            store._lock, store._locked = await store._run(look if readonly else prepare, root)
            try:
                yield store
            finally:
                for shard in store._shards.values():
                    shard.close()
                os.close(store._locked)

    async def put(
        self, chunks: AsyncIterable[bytes], *, expected: str | None = None, limit: int | None = None
    ) -> PutResult:
        """Store bytes; see the contract. A thread hashes and writes one block while the next one is gathered."""
        incoming = Incoming(self._incoming)
        busy: asyncio.Future[None] | None = None
        last: Block = []
        try:
            async for block in blocks(chunks, limit):
                if busy is not None:
                    await busy
                if last:
                    busy = asyncio.ensure_future(self._run(self._take, incoming, last))
                last = block
            if busy is not None:
                await busy
            return await self._run(self._finish, incoming, last, expected)
        except BaseException:
            # A thread may still be writing; `drop` waits for it.
            if busy is not None:
                busy.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.shield(self._run(incoming.drop))
            raise

    async def adopt(self, path: Path, *, limit: int, hashed: hashlib._Hash | None = None) -> PutResult:
        """Store a file on the same file system as a blob, durably: rename it, or remove it if the blob exists.

        The file is hashed and flushed, unless `hashed` gives the SHA-256 of its bytes, which are then already flushed.
        Raises NOT_FOUND if there is no such file; TOO_LARGE, STORAGE_FULL. A file that cannot be stored is removed
        unless it is `hashed`.
        """
        return await self._run(self._adopt, path, limit, hashed)

    async def refresh(self, blob: Blob) -> None:
        """Make a blob count as fresh, durably. Raises NOT_FOUND, also if it is damaged."""
        await self._run(self._refresh, blob)

    def can_adopt(self, directory: Path) -> bool:
        """Return whether files in a directory can be renamed to blobs. This blocks: call it in a thread."""
        return can_rename(directory, self._incoming)

    def hold(self, digest: str) -> None:
        """Keep a blob from being removed until it is released once for each call."""
        self._held[digest] += 1

    def release(self, digest: str) -> None:
        """Undo one call of `hold`."""
        self._held[digest] -= 1
        if not self._held[digest]:
            del self._held[digest]

    @asynccontextmanager
    async def open(self, digest: str, *, verify: bool = False) -> AsyncIterator[OpenFile]:
        """Open a blob; see the contract."""
        async with opened(lambda: guarded(self._open, digest, verify), self._threads) as file:
            yield file

    async def name(self, name: str, digest: str) -> None:
        """Name a blob; see the contract."""
        await self._run(self._put_name, name, digest)

    async def named(self, name: str) -> Blob:
        """Return the blob with a name; see the contract."""
        return await self._run(self._named, name)

    async def aged(self, before: float) -> AsyncIterator[str]:
        """List old names and blobs; see the contract."""
        await self._run(self.check_place)
        for digits in SHARDS:
            for name in await self._run(older_names, self._names / digits, before - self._fresh_for):
                yield NAME_PREFIX + name
        for digits in SHARDS:
            for digest in await self._run(older, self._blobs / digits, before - self._fresh_for):
                if _DIGEST.fullmatch(digest) is not None:  # NFS and rsync leave files of their own there
                    yield digest

    async def remove(self, items: Sequence[str], *, before: float) -> list[int | None]:
        """Remove items; see the contract."""
        return await self._run(self._remove_all, items, before)

    async def info(self) -> StorageInfo:
        """Return how much is stored; see the contract. The first call lists every directory."""
        for digits, shard in self._shards.items():
            if shard.count is None:
                await self._run(self._count, digits)
        shards = self._shards.values()
        free, total = await self._run(lambda: (self.room.free(), self.room.total()))
        blobs, size = sum(shard.count or 0 for shard in shards), sum(shard.size for shard in shards)
        return StorageInfo(blobs=blobs, size=size, free=free, total=total)

    def free(self) -> int | None:
        """Return how many bytes fit; see the contract."""
        return self.room.free()

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded, function, *arguments)

    # The following methods run in threads.

    def check_place(self) -> None:
        """Raise UNAVAILABLE if the directory is not the one that was opened. It blocks: call it in a thread."""
        check_place(self._lock, self._locked)

    def _take(self, incoming: Incoming, block: Block) -> None:
        self.room.check(sum(map(len, block)))
        incoming.hash(block)
        incoming.write(block)

    def _adopt(self, path: Path, limit: int, hashed: hashlib._Hash | None) -> PutResult:
        incoming = Incoming.written(path, limit, hashed)
        try:
            if hashed is None:  # otherwise there was room when the bytes arrived
                self.room.check(0)
            return self._finish(incoming, [], None)
        except BaseException:
            incoming.drop(keep=hashed is not None)
            raise

    def _finish(self, incoming: Incoming, last: Block, expected: str | None) -> PutResult:
        incoming.hash(last)
        if expected is not None and incoming.digest != expected:
            raise Error(
                Code.DIGEST_MISMATCH,
                f"The bytes that arrived have the digest {incoming.digest}, not {expected}. Send them again.",
            )
        blob = Blob(digest=incoming.digest, size=incoming.size)
        shard, path = self._place(blob.digest)
        with shard.lock:
            known, _ = self._freshen(shard, path, blob)
        if known:
            self._check_known(path, blob.digest)
            known = not self._verified.is_damaged(blob.digest)
        if not known:
            if last:
                self.room.check(sum(map(len, last)))
            incoming.write(last)
            if incoming.flushed is None or not self._recent(incoming.flushed):
                incoming.flush(time.time_ns())
            with shard.lock:
                # another call may have stored the same bytes meanwhile
                known, damaged = self._freshen(shard, path, blob)
                if not known:
                    os.replace(incoming.path, path)  # noqa: PTH105 - each call takes the interpreter's lock, and this one is shorter
                    shard.unflushed[path] = object()
                    shard.add(damaged is None, blob.size - (damaged or 0))
                    self._verified.note(blob.digest)
        shard.flush(path, shard.descriptor(path.parent), content=known)
        self.check_place()
        incoming.drop(keep=not known)
        return PutResult(digest=blob.digest, size=blob.size, new=not known)

    def _refresh(self, blob: Blob) -> None:
        shard, path = self._place(blob.digest)
        with shard.lock:
            known, _ = self._freshen(shard, path, blob)
        self.check_place()
        if not known:
            raise Error(Code.NOT_FOUND, f"There is no blob {blob.digest}, or it is damaged.")
        shard.flush(path)

    def _freshen(self, shard: Shard, path: Path, blob: Blob) -> tuple[bool, int | None]:
        """Make a blob fresh, unless it is missing or damaged. Return whether it is fresh, and the size of its file."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return False, None
        if status.st_size != blob.size or self._verified.is_damaged(blob.digest):
            return False, status.st_size
        self._set_time(shard, path, status.st_mtime)
        return True, status.st_size

    def _set_time(self, shard: Shard, path: Path, stored: float) -> None:
        """Update the time of a file unless it is recent; the caller must still flush it."""
        if not self._recent(stored):
            now = time.time_ns()
            os.utime(path, ns=(now, now))
            shard.unflushed[path] = object()

    def _recent(self, stored: float) -> bool:
        """Return whether a time (Unix seconds) is so recent that a file with it counts as fresh."""
        return 0 <= time.time() - stored < self._fresh_for

    def _open(self, digest: str, verify: bool) -> OpenFile:  # noqa: FBT001 - as `open` has it
        _, path = self._place(digest)
        try:
            file = read_plainly(path)
        except FileNotFoundError:
            self.check_place()
            raise Error(Code.NOT_FOUND, f"There is no blob {digest}.") from None
        try:
            size = os.fstat(file.fileno()).st_size
            blob = Blob(digest=digest, size=size)
            lately, damaged = self._verified.lately(digest), self._verified.is_damaged(digest)
            if verify:
                drop_cached(file)
                self._judge(file, digest)
            elif damaged or (size <= _CHECKED_AT_ONCE and not lately):
                self._verified.check(file, digest)
            elif not lately:
                return OpenFile(blob, file, self._threads, self._verified)
            return OpenFile(blob, file, self._threads)
        except BaseException:
            file.close()
            raise

    def _judge(self, file: FileIO, digest: str) -> None:
        """Verify a blob. One that cannot be read is damaged as well, unless the disk as a whole does not work."""
        try:
            self._verified.check(file, digest)
        except OSError as error:
            if error.errno != errno.EIO or not self._works():
                raise
            raise self._verified.damaged(digest, "cannot be read") from error

    def _works(self) -> bool:
        """Return whether a new blob can be stored on the disk and read back from it."""
        incoming, probe = Incoming(self._incoming), secrets.token_bytes(32)
        try:
            digest = self._finish(incoming, [probe], None).digest
            try:
                return reads_back(self._place(digest)[1], probe)
            finally:
                self._remove(digest, math.inf)
        except (OSError, Error):
            return False
        finally:
            incoming.drop()

    def _check_known(self, path: Path, digest: str) -> None:
        """Check once per period whether the existing blob is undamaged; otherwise the new bytes replace it."""
        if self._verified.is_damaged(digest) or self._verified.lately(digest):
            return
        with suppress(FileNotFoundError, Error), read_plainly(path) as file:
            self._judge(file, digest)

    def _put_name(self, name: str, digest: str) -> None:
        shard, blob = self._place(digest)
        with shard.lock:
            try:
                self._set_time(shard, blob, -math.inf)
                moment = blob.stat().st_mtime_ns
            except FileNotFoundError:
                self.check_place()
                raise Error(Code.NOT_FOUND, f"There is no blob {digest} to name.") from None
        shard.flush(blob)
        shard, path = self._place_of_name(name)
        incoming = Incoming(self._incoming)
        try:
            incoming.write([f"{digest}\n{name}".encode()])
            incoming.flush(moment)  # so the blob is at least as fresh as its name
            with shard.lock:
                known = read_name(path)
                if known is not None and known[0] != digest and self._place(known[0])[1].exists():
                    raise Error(Code.CONFLICT, f"The name {name} refers to another blob already.")
                incoming.path.replace(path)
                shard.unflushed[path] = object()
            shard.flush(path, content=False)
            self.check_place()
        finally:
            incoming.drop()

    def _named(self, name: str) -> Blob:
        known = read_name(self._place_of_name(name)[1])
        self.check_place()
        with suppress(FileNotFoundError):
            if known is not None:
                return Blob(digest=known[0], size=self._place(known[0])[1].stat().st_size)
        raise Error(Code.NOT_FOUND, f"Nothing is stored under the name {name}.")

    def _remove_all(self, items: Sequence[str], before: float) -> list[int | None]:
        self.check_place()
        return [self._remove(item, before) for item in items]

    def _remove(self, item: str, before: float) -> int | None:
        name = item.removeprefix(NAME_PREFIX) if item.startswith(NAME_PREFIX) else None
        shard, path = self._place(item) if name is None else self._place_of_name(name)
        with shard.lock:
            try:
                status = path.stat()
                if status.st_mtime >= before - self._fresh_for or (name is None and self._held[item]):
                    return None
                path.unlink()
                shard.unflushed.pop(path, None)
            except FileNotFoundError:
                return None
            if name is None:
                shard.add(-1, -status.st_size)
        return status.st_size

    def _count(self, digits: str) -> None:
        shard = self._shards[digits]
        with shard.lock, os.scandir(self._blobs / digits) as entries:
            sizes = [entry.stat().st_size for entry in entries]
            shard.count, shard.size = len(sizes), sum(sizes)

    def _place(self, digest: str) -> tuple[Shard, Path]:
        if _DIGEST.fullmatch(digest) is None:
            raise Error(Code.NOT_FOUND, "A blob is named by the SHA-256 of its bytes, 64 lower-case hex digits.")
        return self._shards[digest[:2]], self._blobs / digest[:2] / digest

    def _place_of_name(self, name: str) -> tuple[Shard, Path]:
        key = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
        return self._shards[key[:2]], self._names / key[:2] / key
