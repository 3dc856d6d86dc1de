"""The contract of partial uploads: they arrive in several requests and survive broken connections, as tus needs."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from safelight.wire import Blob, NewPartial, Partial


class PartialLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many partial uploads may be open, and the seconds after which one that nobody continues is removed."""

    count: Annotated[int, Meta(ge=1)] = 10_000
    keep: Annotated[float, Meta(gt=0)] = 86400.0


CHECKSUMS = ("sha1", "sha256", "sha512", "md5")
"""The algorithms of an append's checksum, which is written `algorithm:hex`."""


class PartialStore(Protocol):
    """Partial uploads. An offset that a call returns is durable: no crash and no power cut takes it back.

    One call at a time changes an upload. An id that is unknown, removed or expired raises NOT_FOUND.
    """

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload; return the one that is there where its id was given and is known already.

        Raises STORAGE_FULL where it would not fit, TOO_MANY_REQUESTS where too many are open.
        """
        ...

    async def get(self, id: str) -> Partial:
        """Return an upload and its offset. During an append, the offset is the one at which the append began."""
        ...

    async def append(
        self, id: str, offset: int, chunks: AsyncIterable[bytes], *, checksum: str | None = None, holder: str = ""
    ) -> Partial:
        """Append bytes to an upload. With `holder`, take the place of an append of the same holder at an instance that
        has died or cannot be reached; of the bytes of that one, those count that were durable.

        When `chunks` fails, the bytes before the failure are kept, unless a checksum was given, and the failure is
        raised. Raises CONFLICT where the upload's offset is not `offset` (the error has the right one as `offset`),
        where another call is changing the upload (the error has `busy`), or where it is closed; TOO_LARGE past the
        upload's size; DIGEST_MISMATCH where the bytes do not have the checksum, and then keeps none of them;
        INVALID_REQUEST for a malformed checksum.
        """
        ...

    async def finish(self, id: str) -> Blob:
        """Store a complete upload as a blob, which counts as fresh. It may be called again.

        Raises CONFLICT while bytes are missing and after `close`.
        """
        ...

    async def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome of a complete upload and delete its bytes; the record stays until it expires.

        An upload that is closed already keeps its first outcome. That of a finished upload may be lost in a power cut:
        then `finish` returns the same blob once more. Raises CONFLICT while bytes are missing.
        """
        ...

    async def delete(self, id: str) -> None:
        """Delete an upload, closed or not; an append in progress fails."""
        ...

    async def expire(self) -> int:
        """Delete the uploads that have expired; return how many they were."""
        ...
