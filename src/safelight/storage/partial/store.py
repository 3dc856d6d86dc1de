"""The contract of uploads that come in pieces and survive every broken connection (tus asks for no more)."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from safelight.wire import Blob, NewPartial, Partial


class PartialLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What uploads in pieces may take: how many are open at once, seconds until an untouched one is removed."""

    count: Annotated[int, Meta(ge=1)] = 10_000
    keep: Annotated[float, Meta(gt=0)] = 86400.0


CHECKSUMS = ("sha1", "sha256", "sha512", "md5")
"""The algorithms of a piece's checksum, which is written `algorithm:hex`."""


class PartialStore(Protocol):
    """Uploads in pieces. An offset that a call returns is durable: no crash and no power cut takes it back.

    One call at a time changes an upload. An id that is unknown, removed or expired raises NOT_FOUND.
    """

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload. Raises STORAGE_FULL where it would not fit, TOO_MANY_REQUESTS where too many are open."""
        ...

    async def get(self, id: str) -> Partial:
        """Return how far an upload has come. While a piece is on its way, that is where the piece began."""
        ...

    async def append(
        self, id: str, offset: int, chunks: AsyncIterable[bytes], *, checksum: str | None = None
    ) -> Partial:
        """Add a piece at the end of what is there.

        When `chunks` fails, what came before counts (without a checksum), and the failure passes on. Raises CONFLICT
        where the upload does not end at `offset` (with `offset` in the error), or (with `busy`) where another call
        changes it or it is closed; TOO_LARGE past its size; DIGEST_MISMATCH, then nothing of the piece counts;
        INVALID_REQUEST for a checksum that is none.
        """
        ...

    async def finish(self, id: str) -> Blob:
        """Store the whole as a blob, which counts as fresh; again where it was already.

        Raises CONFLICT before the end and after `close`.
        """
        ...

    async def close(self, id: str, outcome: str) -> Partial:
        """Write down what became of a whole upload and let its bytes go; only its record stays until it expires.

        Closed already, it keeps the first outcome. Raises CONFLICT before the end.
        """
        ...

    async def delete(self, id: str) -> None:
        """Forget an upload, closed or not; a piece on its way is broken off."""
        ...

    async def expire(self) -> int:
        """Remove what nobody has touched for too long; return how many uploads that were."""
        ...
