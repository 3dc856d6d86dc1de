"""Remove objects while other instances may be storing them again: mark, look, delete.

A bucket cannot delete an object "unless it was stored again", so the two sides synchronise through a mark. The remover
of an object creates its mark, and only then checks the object's age; it removes the mark after the deletion. The writer
of an existing object makes it fresh, and only then looks for a mark; if there is one, it waits until the mark is gone
and starts over. So either the remover sees the fresh object, or the writer sees the mark.

A mark that an instance left behind in a crash is ignored after `_STALE` seconds. An instance that takes longer than
`_PROMPT` seconds from the mark to the deletion does not delete.
"""

from __future__ import annotations

import asyncio
import secrets
import time

from safelight.errors import Code, Error
from safelight.storage.bucket.objects import Bucket

_PROMPT = 20.0
_STALE = 120.0
_WAIT = 10.0
"""Seconds for which a writer waits for a mark to disappear before it asks its client to retry."""

_SEEN_MARKS = 10_000


class Removal:
    """Both sides of the protocol."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._seen: dict[tuple[str, str], float] = {}
        """When a mark with a tag was first seen, by this machine's clock, since the bucket's clock would not be
        comparable.
        """

    async def remove(self, key: str, *others: str, before: float) -> int | None:
        """Delete an object and `others` if none was stored since `before`; return its size, or None if it stays."""
        mark, began = _mark(key), _now()
        if await self._bucket.create(mark, secrets.token_bytes(16)) is None:
            await self._is_marked(key)
            return None
        size = await self._old_size((key, *others), before)
        if size is not None and _now() - began < _PROMPT:
            # If this fails, the deletion may still happen, and the mark stays until it is stale.
            await self._bucket.delete(key)
            if others:
                await self._bucket.delete(*others)
        else:
            size = None
        await self._bucket.delete(mark)
        return size

    async def stays(self, key: str) -> bool:
        """Return whether an object that was just made fresh exists and can no longer be removed by a pending removal.

        Raises UNAVAILABLE if that stays undecided for some time.
        """
        pause, deadline = 0.01, _now() + _WAIT
        waited = False
        while await self._is_marked(key):
            waited = True
            if _now() > deadline:
                raise Error(Code.UNAVAILABLE, "The blob is being removed. Store it again in a moment.", retry_after=5)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)
        return not waited and await self._bucket.find(key) is not None

    async def _old_size(self, keys: tuple[str, ...], before: float) -> int | None:
        found = [await self._bucket.find(key) for key in keys]
        if found[0] is None or any(one is not None and one.stored >= before for one in found):
            return None
        return found[0].size

    async def _is_marked(self, key: str) -> bool:
        mark = _mark(key)
        found = await self._bucket.find(mark)
        if found is None:
            return False
        if len(self._seen) > _SEEN_MARKS:
            self._seen.clear()
        first = self._seen.setdefault((mark, found.tag), _now())
        if _now() - first < _STALE:
            return True
        await self._bucket.delete(mark)
        return False


def _mark(key: str) -> str:
    return f"marks/{key}"


def _now() -> float:
    """Return the seconds since the machine started, including time while it was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
