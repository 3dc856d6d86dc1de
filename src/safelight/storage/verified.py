"""Remember which blobs were verified lately, and which are damaged."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from io import FileIO

from safelight.errors import Code, Error
from safelight.wire import Blob

_FOR = 86400.0
"""Seconds for which bytes that were verified are not verified again."""
_KEPT = 100_000


class Verified:
    """The state of one store. Thread-safe."""

    def __init__(self) -> None:
        self._damaged: set[str] = set()
        self._seen: OrderedDict[str, float] = OrderedDict()
        """When the latest blobs were last verified, by the monotonic clock."""

    def lately(self, digest: str) -> bool:
        """Return whether the bytes were verified within the last day."""
        seen = self._seen.get(digest)
        return seen is not None and time.monotonic() - seen < _FOR

    def is_damaged(self, digest: str) -> bool:
        """Return whether the bytes were damaged at the last verification."""
        return digest in self._damaged

    def note(self, digest: str) -> None:
        """Record that the bytes have their digest."""
        self._damaged.discard(digest)
        self._seen[digest] = time.monotonic()
        with suppress(KeyError):  # another thread may have removed the last one
            while len(self._seen) > _KEPT:
                self._seen.popitem(last=False)

    def check(self, file: FileIO, digest: str) -> None:
        """Verify all bytes of a file, whose position is its start again. Raises DAMAGED_BLOB, OSError."""
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise self.damaged(digest)
        file.seek(0)
        self.note(digest)

    def damaged(self, digest: str, why: str = "have changed") -> Error:
        """Record that the bytes do not have their digest, or `why` else they are lost, and return the error for it."""
        self._damaged.add(digest)
        self._seen.pop(digest, None)
        return Error(Code.DAMAGED_BLOB, f"The blob {digest} is damaged: its bytes {why}. Store it again.")

    async def passing(
        self, blob: Blob, chunks: AsyncIterator[bytes], in_thread: Callable[..., Awaitable[None]]
    ) -> AsyncIterator[bytes]:
        """Verify all bytes of a blob while they are streamed; the last chunk is held back until the digest is right.

        `in_thread` runs a slow function. Raises DAMAGED_BLOB instead of yielding the last chunk.
        """
        digest, left = hashlib.sha256(), blob.size
        async for chunk in chunks:
            await in_thread(digest.update, chunk)
            left -= len(chunk)
            if not left:
                if digest.hexdigest() != blob.digest:
                    raise self.damaged(blob.digest)
                self.note(blob.digest)
            yield chunk
