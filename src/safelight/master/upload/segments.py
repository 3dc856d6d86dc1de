"""Append the body of a request to a partial upload, so that it arrives even if an instance of storage dies meanwhile.

The body is sent in segments, each by an append of its own. A segment is kept in memory until storage has made it
durable. If storage fails before that, the master sends the missing bytes again to any instance that answers, which
reports the offset of the upload. A body with a checksum is one segment, because it is kept as a whole or not at all.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator

from safelight.client.availability.liveness import UnresponsiveError
from safelight.client.partials import PartialClient
from safelight.errors import Code, Error
from safelight.master.upload.replay import Replay, ReplayBudget
from safelight.wire import Partial

SEGMENT = 8 << 20
"""Bytes after which a segment ends: two parts of a bucket, so that ending one costs little compared with writing it."""
_RETRY_FOR = 15.0
_LONGEST_PAUSE = 1.0


async def append(
    partials: PartialClient,
    partial: Partial,
    offset: int,
    body: AsyncIterator[bytes],
    budget: ReplayBudget,
    *,
    length: int | None,
    checksum: str | None,
) -> Partial:
    """Append a body of `length` bytes (None: unknown) at an offset. Raises what the body and storage raise."""
    holder = secrets.token_hex(8)
    end = partial.size if length is None else offset + length
    while True:
        segment = _Segment(body, math.inf if checksum is not None else SEGMENT)
        replay = Replay([], segment.chunks(), budget, most=2 * SEGMENT)
        try:
            taken = await _Appending(partials, partial.id, holder, checksum).send(replay, offset)
        finally:
            await replay.close()
        offset += segment.size
        if taken.offset != offset:
            raise Error(Code.CONFLICT, f"The upload ends at byte {taken.offset}. Continue there.", offset=taken.offset)
        if segment.ended or offset >= end:
            return taken


class _Segment:
    """The chunks of a body up to a number of bytes."""

    def __init__(self, body: AsyncIterator[bytes], most: float) -> None:
        self._body = body
        self._most = most
        self.size = 0
        self.ended = False
        """Whether the body has ended."""

    async def chunks(self) -> AsyncIterator[bytes]:
        while self.size < self._most:
            chunk = await anext(self._body, None)
            if chunk is None:
                self.ended = True
                return
            self.size += len(chunk)
            yield chunk


class _Appending:
    """Send one segment until storage has all of it."""

    def __init__(self, partials: PartialClient, id: str, holder: str, checksum: str | None) -> None:
        self._partials = partials
        self._id = id
        self._holder = holder
        self._checksum = checksum

    async def send(self, replay: Replay, begin: int) -> Partial:
        """Send the bytes of a replay, which start at offset `begin`; retry the missing ones for some seconds."""
        offset, deadline, pause = begin, math.inf, 0.05
        while True:
            try:
                return await self._attempt(replay, begin, offset)
            except Error as error:
                if replay.failure is not None:  # storage's error about missing bytes only follows from this one
                    raise replay.failure from None
                failed = deadline < math.inf
                reached = error.extra.get("offset")
                if failed and isinstance(reached, int) and reached > offset:
                    offset = reached  # an earlier attempt got this far
                    continue
                if not replay.repeatable or not (_is_passing(error) or (failed and error.extra.get("busy"))):
                    raise
                deadline = min(deadline, time.monotonic() + _RETRY_FOR)
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _attempt(self, replay: Replay, begin: int, offset: int) -> Partial:
        with replay.reader() as reader:
            if offset > begin and self._checksum is not None:
                # With a checksum, storage has all bytes, or it would have none. This ends the hold of the dead
                # instance.
                return await self._partials.append(self._id, offset, _nothing(), holder=self._holder)
            chunks = _without(reader.chunks(), offset - begin)
            return await self._partials.append(self._id, offset, chunks, checksum=self._checksum, holder=self._holder)


def _is_passing(error: Error) -> bool:
    """Return whether another instance may succeed, or this one soon."""
    silent = error.extra.get("idle")  # an error of the body's sender, not of storage
    return error.code is Code.UNAVAILABLE and not silent and not isinstance(error, UnresponsiveError)


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk


async def _without(chunks: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    """Skip the first bytes."""
    async for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:] if count else chunk
        count = max(0, count - len(chunk))
