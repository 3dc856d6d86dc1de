"""The contract of partial uploads, which arrive in several requests and survive broken connections, as tus requires."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from safelight.wire import Blob, NewPartial, Partial


class PartialLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many partial uploads may be open, and the seconds after which one that is not continued is removed."""

    count: Annotated[int, Meta(ge=1)] = 10_000
    keep: Annotated[float, Meta(gt=0)] = 86400.0


CHECKSUMS = ("sha1", "sha256", "sha512", "md5")
"""The algorithms of an append's checksum, which is written `algorithm:hex`."""


class PartialStore(Protocol):
    """Partial uploads. A returned offset is durable and survives crashes and power cuts.

    Only one call at a time may change an upload. An unknown, removed or expired id raises NOT_FOUND.
    """

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload, or return the existing one if its id was given and is known.

        Raises STORAGE_FULL if it would not fit, TOO_MANY_REQUESTS if too many are open.
        """
        ...

    async def get(self, id: str) -> Partial:
        """Return an upload and its offset. During an append, the offset is the one at which the append began."""
        ...

    async def append(
        self, id: str, offset: int, chunks: AsyncIterable[bytes], *, checksum: str | None = None, holder: str = ""
    ) -> Partial:
        """Append bytes to an upload.

        With `holder`, replace an append of the same holder at an instance that has died or cannot be reached; its
        durable bytes count.

        When `chunks` fails, the bytes before the failure are kept, unless a checksum was given, and the failure is
        raised. Raises CONFLICT if the upload's offset is not `offset` (the error has the right one as `offset`), if
        another call is changing the upload (the error has `busy`), or if it is closed; TOO_LARGE past the upload's
        size; DIGEST_MISMATCH, keeping no bytes, if they do not have the checksum; INVALID_REQUEST for a malformed
        checksum.
        """
        ...

    async def finish(self, id: str) -> Blob:
        """Store a complete upload as a blob, which counts as fresh. It may be called again.

        Raises CONFLICT while bytes are missing and after `close`.
        """
        ...

    async def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome of a complete upload and delete its bytes; the record stays until it expires.

        A closed upload keeps its first outcome. The outcome of a finished upload may be lost in a power cut; `finish`
        then returns the same blob again. Raises CONFLICT while bytes are missing.
        """
        ...

    async def delete(self, id: str) -> None:
        """Delete an upload, closed or not; an append in progress fails."""
        ...

    async def expire(self) -> int:
        """Delete the expired uploads; return their number."""
        ...
