"""The contract of a blob store."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from io import FileIO
from typing import Protocol

from safelight.wire import Blob, StorageInfo

NAME_PREFIX = "name:"
"""What `BlobStore.aged` puts before a name, to tell it from a digest."""


class PutResult(Blob, frozen=True, kw_only=True):
    """What a `put` made of the bytes: `new` is False where they were there already."""

    new: bool


class OpenBlob(Protocol):
    """A blob that is open for reading, and stays so when it is removed meanwhile."""

    @property
    def blob(self) -> Blob:
        """Its digest and size."""
        ...

    @property
    def file(self) -> FileIO | None:
        """The open file that holds exactly the bytes, where there is one: HTTP then sends it by sendfile."""
        ...

    def chunks(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream the bytes from `start` to before `end`."""
        ...


class BlobStore(Protocol):
    """Blobs never change and are never overwritten; the same bytes are stored once.

    Memory is constant whatever a blob's size. What a call acknowledged survives a power cut; what it did not leaves
    nothing that anybody sees.
    """

    async def put(
        self, chunks: AsyncIterable[bytes], *, expected: str | None = None, limit: int | None = None
    ) -> PutResult:
        """Store bytes; durable when it returns.

        Bytes that are there already count as fresh again, so that a collection leaves them alone.
        Raises DIGEST_MISMATCH where they are not `expected`, TOO_LARGE past `limit` bytes, STORAGE_FULL.
        """
        ...

    def open(self, digest: str, *, verify: bool = False) -> AbstractAsyncContextManager[OpenBlob]:
        """Open a blob. Raises NOT_FOUND; with `verify`, DAMAGED_BLOB where the bytes no longer have this digest."""
        ...

    async def name(self, name: str, digest: str) -> None:
        """Give a blob a name of the classic protocol, durably; both count as fresh again.

        Raises NOT_FOUND where there is no such blob, CONFLICT where the name stands for other bytes: nothing is
        ever overwritten.
        """
        ...

    async def named(self, name: str) -> Blob:
        """Return the blob with that name. Raises NOT_FOUND."""
        ...

    def aged(self, before: float) -> AsyncIterator[str]:
        """List what was last stored before a time (Unix seconds): a digest as it is, a name as `name:NAME`.

        Names come first. A blob is as fresh as the freshest of its names, so one whose names are all fresh is not
        listed.
        """
        ...

    async def remove(self, item: str, *, before: float) -> int | None:
        """Remove what `aged` gave, unless it was stored again since; return the bytes freed, None where it stays."""
        ...

    async def info(self) -> StorageInfo:
        """Return how much is stored and how much still fits."""
        ...
