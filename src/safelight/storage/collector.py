"""Remove blobs that nobody points at.

What is a grace period old is listed first, then every task's references are read; what was listed and is not
referenced goes. A blob that is put again meanwhile is fresh, and `remove` leaves it alone; one whose reference appears
after the listing was put, freshly, before that. If the references cannot be read to their end, nothing is removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from safelight.client.db import DbClient
from safelight.errors import Code, Error
from safelight.storage.store import NAME_PREFIX, BlobStore
from safelight.wire import Collected, Reference

log = logging.getLogger(__name__)

References = Callable[[], AsyncIterator[Reference]]
"""Starts reading every reference that db has, page by page."""

_AT_ONCE = 200_000
"""Candidates judged by one reading of the references: about 30 MB."""


async def references(db: DbClient) -> AsyncIterator[Reference]:
    """Read every page of db's references."""
    after: int | None = 0
    while after is not None:
        page = await db.referenced(after)
        yield page
        after = page.next


class Collector:
    """Collects on request and from time to time, one collection at once."""

    def __init__(self, store: BlobStore, references: References, grace: float, known_db: Path) -> None:
        self._store = store
        self._known_db = known_db
        self._references = references
        self._grace = grace
        self._lock = asyncio.Lock()

    async def run(self, every: float, done: Callable[[Collected], None]) -> None:
        """Collect every so many seconds, for ever."""
        while True:
            await asyncio.sleep(every)
            try:
                done(await self.collect())
            except Error as error:
                log.warning("Nothing was collected: %s", error.detail)

    async def collect(self) -> Collected:
        """Collect once. Raises `Error` where db or the store does not answer; what is referenced stays in any case."""
        async with self._lock:
            before = time.time() - self._grace
            total = Collected()
            named: set[bytes] = set()
            async for candidates in self._candidates(before):
                total = _sum(total, await self._judge(candidates, named, before))
        if total.removed:
            log.info("Collected %d blobs and names, %d bytes", total.removed, total.freed)
        return total

    async def _candidates(self, before: float) -> AsyncIterator[set[str]]:
        """Batches of what `aged` lists; names before blobs, since a blob stays while a name of its stays."""
        batch: set[str] = set()
        async for item in self._store.aged(before):
            batch.add(item)
            if len(batch) >= _AT_ONCE:
                yield batch
                batch = set()
        if batch:
            yield batch

    async def _judge(self, candidates: set[str], named: set[bytes], before: float) -> Collected:
        examined = len(candidates)
        async for page in self._references():
            await asyncio.to_thread(self._check_db, page.db)
            for name in page.names:
                if NAME_PREFIX + name in candidates:
                    candidates.discard(NAME_PREFIX + name)
                    await self._keep_blob_of(name, named)
            candidates.difference_update(page.digests)
        removed = freed = 0
        for item in sorted(candidates, key=lambda item: not item.startswith(NAME_PREFIX)):
            if not item.startswith(NAME_PREFIX) and bytes.fromhex(item) in named:
                continue
            size = await self._store.remove(item, before=before)
            if size is not None:
                removed += 1
                freed += size
            elif item.startswith(NAME_PREFIX):
                await self._keep_blob_of(item.removeprefix(NAME_PREFIX), named)
        return Collected(examined=examined, removed=removed, freed=freed)

    def _check_db(self, db: str) -> None:
        """Refuse to believe a database that is not that of the collections before, but set up anew, or a wrong one."""
        if not self._known_db.exists():
            self._known_db.write_text(f"{db}\n")
        elif self._known_db.read_text().strip() != db:
            detail = (
                "db is not the database of the collections before, so what it does not know of may still be needed. "
                f"Bring the old one back; or, if it is meant to be gone, remove {self._known_db} and collect again."
            )
            raise Error(Code.CONFLICT, detail)

    async def _keep_blob_of(self, name: str, named: set[bytes]) -> None:
        try:
            named.add(bytes.fromhex((await self._store.named(name)).digest))
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            log.warning("A task points at the name %s. %s", name, error.detail)


def _sum(one: Collected, other: Collected) -> Collected:
    return Collected(
        examined=one.examined + other.examined, removed=one.removed + other.removed, freed=one.freed + other.freed
    )
