"""A key-value store in a SQLite file.

All entries are read from memory; the file is for the next start. A write is applied to a draft and committed on the
store's own thread, and becomes visible only then, so nobody reads an entry that a power cut could undo. Writes that
arrive during a commit share the next one.

The file contains the time to live of an entry, not the time at which it expires. After a restart each entry has its
full time to live again, so services stay registered although the store was down for a while, and a renewal does not
write to the file.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from safelight.errors import Code, Error
from safelight.keyvaluestore.sqlite.draft import Draft, Entries, Standing
from safelight.keyvaluestore.sqlite.file import Row, commit, open_file
from safelight.keyvaluestore.store import check_entry, shown
from safelight.sql.sqlite import Log, Place
from safelight.wire import Entry, EntryPage

log = logging.getLogger(__name__)

_RETRY_EXPIRY = 1.0
"""Seconds after which an expiry that could not be committed is tried again."""


class SqliteStore:
    """A `KeyValueStore` in a SQLite file that only one process uses."""

    def __init__(self, thread: ThreadPoolExecutor, database: sqlite3.Connection, path: Path, max_entries: int) -> None:
        self._thread = thread
        self._database = database
        self._place = Place(path)
        self._log = Log(database)
        self._max_entries = max_entries
        self._entries: Entries = {}
        self._revision = 0
        self._turn = itertools.count()
        self._waiting: list[tuple[Callable[[Draft], Any], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._expiry: asyncio.Task[None] | None = None
        self._count_change: Callable[[str], None] = lambda _kind: None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        max_entries: int = 10_000,
        registry: CollectorRegistry | None = None,
        foreign: bool = False,
    ) -> AsyncIterator[SqliteStore]:
        """Open or create the file; `foreign` marks an untrusted one. Raises UNAVAILABLE, DAMAGED_BLOB."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="keyvaluestore") as thread:
            opening = copy_context().run  # its log lines name the service
            database, rows, revision = await loop.run_in_executor(thread, opening, open_file, path, foreign)
            store = cls(thread, database, path, max_entries)
            store._load(rows, revision)
            if registry is not None:
                store._measure(registry)
            try:
                yield store
            finally:
                await store._close()

    async def get(self, key: str) -> str:
        """Return a value; see the contract."""
        under = self._entries.get(key)
        if not under:
            raise Error(Code.NOT_FOUND, "Key not found")
        return [standing.entry.value for standing in under.values()][next(self._turn) % len(under)]

    async def entries(self, key: str | None = None) -> EntryPage:
        """Return the live entries; see the contract."""
        keys = sorted(self._entries) if key is None else [key]
        found = [
            self._entries[name][instance].entry for name in keys for instance in sorted(self._entries.get(name, {}))
        ]
        return EntryPage(entries=found, revision=self._revision)

    async def set(self, key: str, value: str, *, instance: str = "", ttl: float | None = None) -> Entry:
        """Set a value; see the contract."""
        check_entry(key, value, instance, ttl)
        entry: Entry = await self._write(lambda draft: draft.set(key, value, instance, ttl))
        return entry

    async def delete(self, key: str, *, instance: str | None = None) -> int:
        """Delete entries; see the contract."""
        gone: int = await self._write(lambda draft: draft.delete(key, instance))
        return gone

    async def watch(self, after: int, *, key: str | None = None, wait: float = 30.0) -> EntryPage:
        """Wait for a change; see the contract."""
        try:
            async with asyncio.timeout(wait):
                while self._revision == after and not self._stopping:
                    await self._changed.wait()
        except TimeoutError:
            pass  # the page shows that nothing has changed
        return await self.entries(key)

    def wake(self) -> None:
        """End every watch now; see the contract."""
        self._stopping = True
        self._changed.set()

    def _load(self, rows: Sequence[Row], revision: int) -> None:
        wall, now = time.time(), time.monotonic()
        entries: dict[str, dict[str, Standing]] = {}
        for key, instance, value, ttl, changed in rows:
            expires = None if ttl is None else wall + ttl
            entry = Entry(key=key, value=value, instance=instance, revision=changed, expires=expires)
            deadline = math.inf if ttl is None else now + ttl
            entries.setdefault(key, {})[instance] = Standing(entry=entry, ttl=ttl, deadline=deadline)
        self._publish(entries, revision)

    def _measure(self, registry: CollectorRegistry) -> None:
        gauge = Gauge("safelight_keyvaluestore_entries", "Entries in the store", registry=registry)
        gauge.set_function(lambda: sum(map(len, self._entries.values())))
        changes = Counter("safelight_keyvaluestore_changes", "Entries changed", ["kind"], registry=registry)
        self._count_change = lambda kind: changes.labels(kind).inc()

    async def _write(self, apply: Callable[[Draft], Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((apply, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._commit_waiting(), name="keyvaluestore writer")
        return await future

    async def _commit_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._commit_batch(batch)
            except Exception as error:  # noqa: BLE001 - those who wait must learn of it, whatever it is
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
        self._writer = None

    async def _commit_batch(self, batch: Sequence[tuple[Callable[[Draft], Any], asyncio.Future[Any]]]) -> None:
        draft = Draft(self._entries, self._revision, self._max_entries)
        results: list[tuple[asyncio.Future[Any], Any]] = []
        for apply, future in batch:
            try:
                results.append((future, apply(draft)))
            except Error as error:
                if not future.done():
                    future.set_exception(error)
        if draft.statements:
            statements = [*draft.statements, ("set_revision", (draft.revision,))]
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, commit, self._database, self._place, self._log, statements)
        self._publish(draft.entries, draft.revision)
        for kind, entry in draft.changes:
            log.info("%s%s", shown(entry), {"set": "", "delete": " deleted", "expire": " expired"}[kind])
            self._count_change(kind)
        for future, result in results:
            if not future.done():
                future.set_result(result)

    def _publish(self, entries: Entries, revision: int) -> None:
        changed = revision != self._revision
        self._entries, self._revision = entries, revision
        self._set_timer()
        if changed and not self._stopping:
            self._changed.set()
            self._changed = asyncio.Event()

    def _set_timer(self, pause: float = 0.0) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        first = min((s.deadline for under in self._entries.values() for s in under.values()), default=math.inf)
        if first < math.inf and not self._stopping:
            loop = asyncio.get_running_loop()
            # Slightly late, so that the deadline has passed even on a coarse clock.
            self._timer = loop.call_later(max(pause, first - time.monotonic() + 0.001), self._start_expiry)

    def _start_expiry(self) -> None:
        self._timer = None
        self._expiry = asyncio.create_task(self._expire(), name="keyvaluestore expiry")

    async def _expire(self) -> None:
        try:
            await self._write(lambda draft: draft.expire(time.monotonic()))
        except (Error, MemoryError) as error:
            log.warning("Expired entries could not be deleted yet: %s", getattr(error, "detail", "no memory is left."))
            self._set_timer(_RETRY_EXPIRY)

    async def _close(self) -> None:
        self.wake()
        if self._timer is not None:
            self._timer.cancel()
        while self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        if self._expiry is not None:
            await asyncio.gather(self._expiry, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
