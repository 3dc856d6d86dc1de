"""The task store in a SQLite file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from safelight import background
from safelight.db.calls.store import CallStore, Observe, unobserved
from safelight.db.commit.transaction import Reads, Transaction
from safelight.db.sqlite import maintenance
from safelight.db.sqlite.database import Database
from safelight.db.stalls import TICK
from safelight.db.store import Policy
from safelight.errors import Error
from safelight.logs import Sparing
from safelight.steady import Ages, Clock
from safelight.wire import State

log = logging.getLogger(__name__)

T = TypeVar("T")


class SqliteStore(CallStore):
    """`store.TaskStore` in a SQLite file. Open it with `open`."""

    def __init__(self, path: Path, *, policy: Policy, clock: Clock, observe: Observe = unobserved) -> None:
        super().__init__(policy, observe)
        self._clock = clock
        self._ages = Ages(clock=clock)
        self._next: int | None = None
        self._sooner = asyncio.Event()
        self._leased = asyncio.Event()
        """Set while a task is leased."""
        self._database = Database(path, clock=clock, committed=self._committed)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        *,
        policy: Policy | None = None,
        clock: Clock | None = None,
        observe: Observe = unobserved,
    ) -> AsyncIterator[SqliteStore]:
        """Open or create the file until the context ends. Raises UNAVAILABLE with the reason."""
        store = cls(path, policy=policy or Policy(), clock=clock or Clock(), observe=observe)
        tasks: list[asyncio.Task[None]] = []
        try:
            store._ages = Ages(await store._do(maintenance.start, store._policy), clock=store._clock)
            tasks = [
                asyncio.create_task(background.again(store._maintain, "maintenance")),
                asyncio.create_task(background.again(store._tick, "signs of life")),
            ]
            yield store
        finally:
            store.wake()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(Error):
                await store._do(maintenance.keep_ages, store._ages, due=False)
            await store._database.close()

    async def pass_time(self) -> None:
        """Do the due maintenance. The store also does this by itself."""
        await self._do(maintenance.pass_time, self._policy, self._ages, self._database.stalls)

    async def snapshot(self, target: Path) -> None:
        """Copy everything into a new file; see `store.Snapshots`."""
        await self._database.copy(target)

    def _submit(
        self,
        work: Callable[[Transaction], T],
        *,
        lost: Callable[[T], None] | None = None,
        durable: bool = True,
        reads: Reads | None = None,
    ) -> asyncio.Future[T]:
        del reads  # a statement costs no round trip here
        return self._database.submit(work, lost=lost, durable=durable)

    def _committed(self, transaction: Transaction, calls: int) -> None:
        self._observe(calls, transaction.events)
        self._note_leases()
        if transaction.passed:
            self._next = transaction.foreseen
        if transaction.soonest is not None and (self._next is None or transaction.soonest < self._next):
            self._next = transaction.soonest
            self._sooner.set()
        if transaction.events:
            self._events.notify()
        if transaction.webhooks or (transaction.passed and self._database.memory.deliveries):
            self._webhooks.notify()
        self._queue.serve(transaction.available)

    async def _maintain(self) -> None:
        """Do the due maintenance, then sleep until the next one."""
        delayed = Sparing(log, logging.WARNING)
        while True:
            try:
                await self.pass_time()
            except Error as error:
                delayed("The maintenance of the database is delayed: %s", error)
                await asyncio.sleep(1.0)
                continue
            while self._next is None or self._next > self._clock.steady() * 1000:
                self._sooner.clear()
                seconds = None if self._next is None else self._next / 1000 - self._clock.steady()
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._sooner.wait()

    async def _tick(self) -> None:
        """Record that the event loop runs; if it did not, no lease expires for a while.

        A time without leases counts as a stall that ends with the next lease, which no lease notices.
        """
        while True:
            self._note_leases()
            await self._leased.wait()
            self._database.stalls.tick()
            await asyncio.sleep(TICK)

    def _note_leases(self) -> None:
        if self._database.memory.counts[State.WORKING]:
            self._leased.set()
        else:
            self._leased.clear()
