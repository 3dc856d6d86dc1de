"""The contract of a blob store."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from io import FileIO
from typing import Protocol

from safelight.wire import Blob, StorageInfo, StoredBlob

NAME_PREFIX = "name:"
"""The prefix of names in `BlobStore.aged`, which distinguishes them from digests."""


PutResult = StoredBlob


class OpenBlob(Protocol):
    """A blob that is open for reading. It stays readable if it is removed meanwhile."""

    @property
    def blob(self) -> Blob:
        """The digest and size."""
        ...

    @property
    def file(self) -> FileIO | None:
        """The open file that holds exactly these bytes, if there is one; HTTP sends it with sendfile."""
        ...

    def chunks(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream the bytes from `start` up to, but not including, `end` (None: the end of the blob)."""
        ...


class BlobStore(Protocol):
    """Immutable blobs. Blobs are never overwritten, and equal bytes are stored once.

    A call takes the same memory whatever the size of the blob. Acknowledged changes survive a power cut; a failed call
    has no visible effect.
    """

    async def put(
        self, chunks: AsyncIterable[bytes], *, expected: str | None = None, limit: int | None = None
    ) -> PutResult:
        """Store bytes durably.

        A blob that already exists counts as fresh again, so that a collection keeps it. Raises DIGEST_MISMATCH if the
        digest is not `expected`, TOO_LARGE past `limit` bytes, STORAGE_FULL.
        """
        ...

    def open(self, digest: str, *, verify: bool = False) -> AbstractAsyncContextManager[OpenBlob]:
        """Open a blob for reading until the context ends.

        Raises NOT_FOUND; with `verify`, which reads them from the disk, DAMAGED_BLOB if the bytes no longer have this
        digest, or if only they cannot be read.
        """
        ...

    async def name(self, name: str, digest: str) -> None:
        """Give a blob a name of the classic protocol, durably; both count as fresh again.

        Raises NOT_FOUND if there is no such blob, CONFLICT if the name refers to another blob.
        """
        ...

    async def named(self, name: str) -> Blob:
        """Return the blob that a name refers to. Raises NOT_FOUND."""
        ...

    def aged(self, before: float) -> AsyncIterator[str]:
        """List the names (as `name:NAME`) and then the digests that were last stored before a time (Unix seconds).

        Naming a blob first makes it fresh as well, so a blob is hardly older than the newest of its names.
        """
        ...

    async def remove(self, items: Sequence[str], *, before: float) -> list[int | None]:
        """Remove items that `aged` listed, unless they were stored again since.

        Return the number of bytes freed by each, or None for an item that stays.
        """
        ...

    async def info(self) -> StorageInfo:
        """Return how much is stored and how much still fits."""
        ...

    def free(self) -> int | None:
        """Return how many more bytes fit, or None if unknown. Call it in a thread, since it may block."""
        ...
