"""Garbage collection: remove blobs to which no task refers.

A collection first lists the blobs that are older than a grace period (by `steady.Ages`, so that a wrong clock removes
nothing). Then it reads the references of every task, and removes the listed blobs that are not referenced. A blob that
is stored again meanwhile is fresh, and `remove` skips it; a reference that appears after the listing belongs to a blob
that was stored, and so was fresh, before it. If the references cannot be read completely, nothing is removed.

A blob is kept by its names, which are judged only once they are old themselves. A name may be a little newer than what
makes its blob fresh, so blobs stay a little longer than names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.steady import Ages
from safelight.storage.files import guarded
from safelight.storage.store import NAME_PREFIX, BlobStore
from safelight.wire import ClockConfirmed, Collected, Reference

log = logging.getLogger(__name__)

References = Callable[[], AsyncIterator[Reference]]
"""Reads all references that db has, page by page."""

_AGAIN = 60.0
"""Seconds after which a failed collection is tried again."""
_AT_ONCE = 50
"""Items to remove in one call: few enough that concurrent stores do not wait long."""
_NAMED_LATER = 3600.0
"""The most seconds by which a name may be newer than what makes its blob fresh, if a bucket answers only to retries."""
_CANDIDATES = 200_000
"""Candidates for which to read the references once; they take about 30 MB."""


async def references(db: DbClient) -> AsyncIterator[Reference]:
    """Read all references from db, page by page."""
    after: int | None = 0
    while after is not None:
        page = await db.referenced(after)
        yield page
        after = page.next


class KnownDb(Protocol):
    """The file or object that stores the identity of the database of earlier collections."""

    def exists(self) -> bool:
        """Return whether there was an earlier collection."""
        ...

    def read_text(self) -> str:
        """Return the identity."""
        ...

    def write_text(self, data: str, /) -> int:
        """Store the identity."""
        ...


Turn = Callable[[], AbstractAsyncContextManager[None]]
"""Held during a collection, so that one instance collects at a time. Raises CONFLICT (`busy`) while another has it."""


class Collector:
    """Collects garbage on request and at intervals, one collection at a time."""

    def __init__(
        self,
        store: BlobStore,
        references: References,
        grace: float,
        known_db: KnownDb,
        turn: Turn = nullcontext,
        ages: Ages | None = None,
        confirmed: Callable[[], Awaitable[ClockConfirmed]] | None = None,
    ) -> None:
        """Take `confirmed`, which returns when a person last confirmed the clock."""
        self._store = store
        self._turn = turn
        self._known_db = known_db
        self._references = references
        self._grace = grace
        self._longer = min(_NAMED_LATER, grace / 24)
        self._ages = ages or Ages()
        self._confirmed = confirmed
        self._lock = asyncio.Lock()

    async def run(
        self, every: float, done: Callable[[Collected], None], failed: Callable[[], None] = lambda: None
    ) -> None:
        """Collect every `every` seconds, forever, and sooner after a failure."""
        pause = every
        while True:
            await asyncio.sleep(pause)
            pause = every
            try:
                done(await self.collect())
                continue
            except Error as error:
                if error.extra.get("busy"):
                    log.info("No garbage collection now: %s", error.detail)
                    continue
                log.warning("The garbage collection failed and is tried again: %s", error.detail)
            except Exception:
                log.exception("Unexpected error in the garbage collection, which is tried again")
            failed()
            pause = min(every, _AGAIN)

    async def collect(self) -> Collected:
        """Collect once. Raises `Error` if db or the store fails; referenced blobs are kept in any case."""
        async with self._lock, self._turn():
            total = Collected()
            await self._look_for_confirmation()
            before = self._ages.before("blobs", self._grace)
            if before is None:
                log.info("Nothing has been observed to be old for long enough to be removed")
                return total
            named: set[bytes] = set()
            async for candidates in self._candidates(before):
                total = _sum(total, await self._judge(candidates, named, before))
        if total.removed:
            log.info("Removed %d unreferenced blobs and names, %d bytes", total.removed, total.freed)
        return total

    async def _look_for_confirmation(self) -> None:
        """Ask db whether a person has confirmed the clock. Without an answer, deletion only starts later."""
        if self._confirmed is None:
            return
        try:
            self._ages.confirm((await self._confirmed()).at)
        except Error as error:
            log.debug("Cannot find out whether the clock was confirmed: %s", error.detail)

    async def _candidates(self, before: float) -> AsyncIterator[set[str]]:
        """Yield the items of `aged`, in batches. Names come first, since a blob stays as long as one of its names."""
        batch: set[str] = set()
        async for item in self._store.aged(before):
            batch.add(item)
            if len(batch) >= _CANDIDATES:
                yield batch
                batch = set()
        if batch:
            yield batch

    async def _judge(self, candidates: set[str], named: set[bytes], before: float) -> Collected:
        examined = len(candidates)
        async for page in self._references():
            await asyncio.to_thread(guarded, self._check_db, page.db)
            for name in page.names:
                if NAME_PREFIX + name in candidates:
                    candidates.discard(NAME_PREFIX + name)
                    await self._keep_blob_of(name, named)
            candidates.difference_update(page.digests)
        names = [item for item in candidates if item.startswith(NAME_PREFIX)]
        sizes = await self._remove(names, before)
        for item, size in zip(names, sizes, strict=True):
            if size is None:
                await self._keep_blob_of(item.removeprefix(NAME_PREFIX), named)
        blobs = [item for item in candidates.difference(names) if bytes.fromhex(item) not in named]
        freed = [size for size in sizes + await self._remove(blobs, before - self._longer) if size is not None]
        return Collected(examined=examined, removed=len(freed), freed=sum(freed))

    async def _remove(self, items: list[str], before: float) -> list[int | None]:
        sizes: list[int | None] = []
        for start in range(0, len(items), _AT_ONCE):
            sizes += await self._store.remove(items[start : start + _AT_ONCE], before=before)
        return sizes

    def _check_db(self, db: str) -> None:
        """Refuse a database that is not the one of earlier collections, because it is new or wrong. Raises CONFLICT."""
        known = self._known_db.read_text().strip() if self._known_db.exists() else ""
        if not known:  # a full disk may have left an empty file from the first collection
            self._known_db.write_text(f"{db}\n")
        elif known != db:
            detail = (
                "The database is not that of earlier collections, so it may not know every blob that is needed. "
                f"Restore the old one; or, if it is gone for good, remove {self._known_db} and collect again."
            )
            raise Error(Code.CONFLICT, detail)

    async def _keep_blob_of(self, name: str, named: set[bytes]) -> None:
        try:
            named.add(bytes.fromhex((await self._store.named(name)).digest))
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            log.warning("A task refers to the name %s. %s", name, error.detail)


def _sum(one: Collected, other: Collected) -> Collected:
    return Collected(
        examined=one.examined + other.examined, removed=one.removed + other.removed, freed=one.freed + other.freed
    )
