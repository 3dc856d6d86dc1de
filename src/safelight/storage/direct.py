"""Storage for services of the same process: the methods of its clients, without HTTP in between.

Like the routes, this adds limits, metrics and idle timeouts to the stores.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import FileIO

from safelight.errors import Code, Error
from safelight.http.silence import in_time
from safelight.storage import download
from safelight.storage.app import Limits, Numbers
from safelight.storage.backends import MakeLink
from safelight.storage.partial.store import PartialStore
from safelight.storage.store import BlobStore, OpenBlob
from safelight.wire import Blob, BlobLink, NewBlobLink, NewPartial, Partial, StorageInfo, StoredBlob

_HERE = "here"
"""The name of this process among the instances of storage."""


class DirectAnswer:
    """A `client.storage.BlobAnswer` for a blob that is open in this process."""

    def __init__(self, reading: OpenBlob, selected: download.Selected, *, head: bool) -> None:
        self.status = selected.status
        self.headers: Mapping[str, str] = {**selected.headers, "Content-Length": str(len(selected.span))}
        if selected.status == 304:
            self.headers = selected.headers
        self._span = range(0) if head else selected.span
        self._reading = reading

    @property
    def file(self) -> tuple[FileIO, range] | None:
        """The open file and the range of it to send."""
        return None if self._reading.file is None else (self._reading.file, self._span)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Stream the bytes."""
        if self._span:
            async for chunk in self._reading.chunks(self._span.start, self._span.stop):
                yield chunk

    async def read(self) -> bytes:
        """Return the bytes as a whole."""
        return b"".join([chunk async for chunk in self.chunks()])


class DirectStorage:
    """A blob store with the methods of `client.storage.StorageClient`, except those that only commands use."""

    def __init__(self, store: BlobStore, limits: Limits, numbers: Numbers, link: MakeLink | None = None) -> None:
        self._store = store
        self._link = link
        self._limit = limits.blob
        self._numbers = numbers

    async def put(
        self, body: bytes | AsyncIterable[bytes], *, expected: str | None = None, apart: set[str] | None = None
    ) -> StoredBlob:
        """Store bytes durably as a blob; see the client. Raises DIGEST_MISMATCH, STORAGE_FULL, TOO_LARGE."""
        if apart:
            raise Error(Code.UNAVAILABLE, "There is no other instance of storage.")
        if apart is not None:
            apart.add(_HERE)
        chunks = _once(body) if isinstance(body, bytes) else body
        stored = await self._store.put(chunks, expected=expected, limit=self._limit)
        self._numbers.count_put(stored)
        return stored

    @asynccontextmanager
    async def open(
        self, digest: str, *, verify: bool = False, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[DirectAnswer]:
        """Open a blob; see the client."""
        try:
            async with self._store.open(digest, verify=verify) as reading:
                selected = download.select(reading.blob, headers or {})
                yield DirectAnswer(reading, selected, head=method == "HEAD")
                self._numbers.sent.inc(0 if method == "HEAD" else len(selected.span))
        except Error as error:
            if error.code is Code.DAMAGED_BLOB:
                self._numbers.damaged.inc()
            raise

    async def read(self, digest: str) -> bytes:
        """Return all bytes of a blob. Raises NOT_FOUND."""
        async with self.open(digest) as answer:
            return await answer.read()

    async def link(self, digest: str, new: NewBlobLink) -> BlobLink:
        """Return a temporary link to a blob for clients."""
        return BlobLink(url="") if self._link is None else self._link(digest, new)

    async def named(self, name: str) -> Blob:
        """Return the blob to which a classic name refers. Raises NOT_FOUND."""
        return await self._store.named(name)

    async def name(self, name: str, digest: str) -> None:
        """Give a blob a classic name. Raises NOT_FOUND; CONFLICT if the name refers to another blob."""
        await self._store.name(name, digest)

    async def info(self) -> StorageInfo:
        """Return how much is stored and how much still fits."""
        return await self._store.info()


class DirectPartials:
    """Partial uploads with the methods of `client.partials.PartialClient`."""

    def __init__(self, store: PartialStore, idle_timeout: float) -> None:
        self._store = store
        self._idle_timeout = idle_timeout

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload."""
        return await self._store.create(new)

    async def get(self, id: str) -> Partial:
        """Return an upload and its offset. Raises NOT_FOUND."""
        return await self._store.get(id)

    async def append(
        self, id: str, offset: int, body: AsyncIterable[bytes], *, checksum: str | None = None, holder: str = ""
    ) -> Partial:
        """Append bytes. A sender that sends nothing for too long is dropped; the bytes it sent are kept."""
        chunks = in_time(body, self._idle_timeout)
        return await self._store.append(id, offset, chunks, checksum=checksum, holder=holder)

    async def finish(self, id: str) -> Blob:
        """Store a complete upload as a blob. Raises CONFLICT while bytes are missing."""
        return await self._store.finish(id)

    async def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome of a complete upload."""
        return await self._store.close(id, outcome)

    async def delete(self, id: str) -> None:
        """Delete an upload."""
        await self._store.delete(id)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
