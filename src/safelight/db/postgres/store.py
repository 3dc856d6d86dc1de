"""The task store in a PostgreSQL database, which any number of instances share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from safelight import background
from safelight.client.availability.reachability import Reachability
from safelight.db.calls.store import CallStore, Observe, unobserved
from safelight.db.commit.transaction import Reads, Transaction
from safelight.db.postgres import partitions, schema
from safelight.db.postgres.database import Database
from safelight.db.postgres.maintenance import PAUSE, Maintenance
from safelight.db.postgres.sessions.address import Address
from safelight.db.postgres.sessions.listening import listening
from safelight.db.postgres.transaction import PostgresTransaction
from safelight.db.stalls import TICK
from safelight.db.store import Policy
from safelight.errors import Error
from safelight.logs import Sparing
from safelight.steady import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 4
"""The number of reading sessions."""
_LISTEN_FOR = 90.0
"""Seconds after the start of the last wait for which other instances notify this one: longer than any wait."""


class PostgresStore(CallStore):
    """`store.TaskStore` in a PostgreSQL database. Open it with `open`."""

    def __init__(
        self, address: Address, *, policy: Policy, readers: int, clock: Clock | None, observe: Observe
    ) -> None:
        super().__init__(policy, observe)
        self._maintenance = Maintenance(policy, clock)
        self._next = 0.0
        """When the next maintenance is due, in seconds of the monotonic clock."""
        self._ahead = 0.0
        """The difference between the database's clock and the monotonic clock, in seconds."""
        self._sooner = asyncio.Event()
        self._listen_until = 0.0
        self.reachability: Reachability = Reachability("postgresql")
        self._database = Database(
            address,
            readers=readers,
            spans=partitions.spans(policy),
            clock=clock,
            committed=self._committed,
            entered=lambda: self._heard(1, events=True, webhooks=True),
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        policy: Policy | None = None,
        readers: int = READERS,
        statement_timeout: float = 30.0,
        clock: Clock | None = None,
        observe: Observe = unobserved,
        wait: bool = False,
    ) -> AsyncIterator[PostgresStore]:
        """Open the database until the context ends. Raises UNAVAILABLE with the reason.

        With `wait`, wait for a server that cannot be reached yet.
        An empty database is set up. Times are those of the database, unless a `clock` is given.
        """
        address = Address(url=url, statement_timeout=statement_timeout)
        await (schema.check_once_reachable if wait else schema.check)(address)
        store = cls(address, policy=policy or Policy(), readers=readers, clock=clock, observe=observe)
        tasks: list[asyncio.Task[None]] = []
        try:
            await store._database.start()
            async with listening(address, store._heard, store.reachability):
                tasks = [
                    asyncio.create_task(background.again(store._maintain, "maintenance")),
                    asyncio.create_task(background.again(store._tick, "signs of life")),
                ]
                yield store
                store.wake()
        finally:
            store.wake()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store._database.close()

    async def pass_time(self) -> None:
        """Do the due maintenance, if this instance is responsible. The store also does this by itself."""
        await self._do(self._pass_time)

    def _pass_time(self, transaction: Transaction) -> None:
        assert isinstance(transaction, PostgresTransaction)
        if self._database.maintain(transaction.connection):
            self._maintenance.pass_time(transaction, self._database.stalls)
        else:
            self._maintenance.forget()
            transaction.foreseen = transaction.now + PAUSE
            transaction.passed = True

    def _submit(
        self,
        work: Callable[[Transaction], T],
        *,
        lost: Callable[[T], None] | None = None,
        durable: bool = True,
        reads: Reads | None = None,
    ) -> asyncio.Future[T]:
        del durable  # every commit is flushed, since other instances have seen its writes
        return self._database.submit(work, lost=lost, reads=reads)

    def _look(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        return self._database.look(work)

    async def _listen(self) -> None:
        """Let other instances notify this one from now on."""
        self._listen_until = time.monotonic() + _LISTEN_FOR
        if not self._database.heard:
            await self._submit(self._database.hear)

    def _heard(self, available: int, *, events: bool, webhooks: bool) -> None:
        """Wake the waiters for a commit of another instance."""
        if events:
            self._events.notify()
        if webhooks:
            self._webhooks.notify()
        self._queue.serve(available)

    def _committed(self, transaction: PostgresTransaction, calls: int) -> None:
        self.reachability.answered()
        self._observe(calls, transaction.events)
        self._ahead = transaction.now / 1000 - time.monotonic()
        if transaction.passed and transaction.foreseen is not None:
            self._next = transaction.foreseen / 1000 - self._ahead
        if self._database.maintains and transaction.soonest is not None:
            soonest = transaction.soonest / 1000 - self._ahead
            if soonest < self._next:
                self._next = soonest
                self._sooner.set()
        self._heard(transaction.available, events=bool(transaction.events), webhooks=transaction.webhooks)

    async def _maintain(self) -> None:
        """Do the due maintenance, then sleep until the next one."""
        delayed = Sparing(log, logging.WARNING)
        while True:
            self._sooner.clear()
            try:
                await self.pass_time()
                if self._database.heard and time.monotonic() > self._listen_until:
                    await self._submit(self._database.unhear)
            except Error as error:
                delayed("The maintenance of the database is delayed: %s", error)
                await asyncio.sleep(1.0)
                continue
            with suppress(TimeoutError):
                while (seconds := self._next - time.monotonic()) > 0:
                    async with asyncio.timeout(seconds):
                        await self._sooner.wait()
                    self._sooner.clear()

    async def _tick(self) -> None:
        """Record that the event loop runs; if it did not, no lease expires for a while."""
        while True:
            self._database.stalls.tick()
            await asyncio.sleep(TICK)
