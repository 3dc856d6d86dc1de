"""Run the worker: wait for leases, keep the slots busy, and stop without losing work."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from safelight.client.availability.retrying import retrying
from safelight.client.discovery import Discovery
from safelight.errors import Error
from safelight.wire import Died, Outcome, Returned
from safelight.worker.attempts import Attempts
from safelight.worker.leases import Held, Leases
from safelight.worker.outage import Outage
from safelight.worker.prefetch import Prefetch
from safelight.worker.workdir import Workdir

log = logging.getLogger(__name__)

_IDLE_AFTER = 0.25
_RETURN = 120.0
"""Seconds for which to try returning the leases of a dead worker; after that they have expired."""
_FLUSH = 5.0
"""Seconds for the last outcomes to reach the master."""


class Worker:
    """Makes an attempt for each lease."""

    def __init__(
        self,
        leases: Leases,
        attempts: Attempts,
        prefetch: Prefetch,
        discovery: Discovery,
        workdir: Workdir,
        outage: Outage,
        *,
        drain: float,
    ) -> None:
        self._leases = leases
        self._attempts = attempts
        self._prefetch = prefetch
        self._discovery = discovery
        self._workdir = workdir
        self._outage = outage
        outage.hand_back = self._hand_back
        self._drain = drain
        self._stopping = asyncio.Event()
        self._warned = 0.0
        self._idle = False

    def stop(self) -> None:
        """Take no more leases."""
        self._stopping.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the context ends; leaving it drains."""
        async with self._leases.kept():
            life = asyncio.create_task(self._live(), name="worker")
            try:
                yield
            finally:
                self.stop()
                await life

    async def _live(self) -> None:
        leasing = asyncio.create_task(self._lease(), name="leasing")
        returning = asyncio.create_task(self._return_leases_of_dead(), name="dead workers")
        await self._stopping.wait()
        self._leases.leaving = True
        self._hand_back()  # first, since other workers wait for these
        await self._leases.abandon()
        leasing.cancel()
        returning.cancel()
        await asyncio.gather(leasing, returning, return_exceptions=True)
        await self._leave()

    async def _return_leases_of_dead(self) -> None:
        """Return the leases of workers that died on this data directory, instead of waiting for their expiry."""
        try:
            for dead in await asyncio.to_thread(self._workdir.predecessors):
                if dead.decoding is not None:
                    return_leases = partial(self._leases.return_leases_of, dead.id, dead.decoding, dead.unreported)
                    await retrying(return_leases, retry_for=_RETURN)
                    log.info("Returned the leases of the worker %s, which died", dead.id)
                await asyncio.to_thread(dead.remove)
        except Error as error:
            log.warning("The leases of a worker that died could not be returned and will expire: %s", error.detail)
        except Exception:
            log.exception("Unexpected error while returning the leases of a worker that died")

    def _hand_back(self) -> None:
        """Hand back the leases whose decoding has not begun."""
        for held in list(self._leases.held.values()):
            if not held.started:
                held.abort()

    async def _lease(self) -> None:
        for service in ("master", "storage"):
            await self._discovery.wait_for(service)
        pause = 0.05
        while not self._stopping.is_set():
            try:
                await self._outage.over()
                await self._take()
            except Error as error:
                self._warn(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            except Exception:
                log.exception("Unexpected error while requesting leases")
                await asyncio.sleep(1.0)
            else:
                pause, self._warned = 0.05, 0.0

    async def _take(self) -> None:
        """Wait until more leases are wanted, take them and start their attempts. Raises the master's errors."""
        n = self._prefetch.wanted(len(self._leases.held))
        if not n:
            self._leases.changed.clear()
            await self._leases.changed.wait()
            return
        idle = asyncio.get_running_loop().call_later(_IDLE_AFTER, self._say_idle)
        try:
            taken = await self._leases.take(n)
        finally:
            idle.cancel()
        for held in taken:
            self._start(held)

    def _start(self, held: Held) -> None:
        if self._stopping.is_set() or self._outage.present:
            self._leases.settle(held, Returned(lease=held.lease.id))
            return
        self._idle = False
        held.work = asyncio.create_task(self._attempts.make(held))
        held.work.add_done_callback(partial(self._end, held))

    def _end(self, held: Held, work: asyncio.Task[Outcome]) -> None:
        """Settle a lease whose attempt is over, which may have been cancelled before its first step."""
        if held.lost:
            return
        outcome: Outcome = Returned(lease=held.lease.id)
        if work.cancelled():
            log.info("Returned task %s", held.lease.task, extra={"task": held.lease.task})
        elif error := work.exception():
            log.error("Unexpected error in task %s", held.lease.task, extra={"task": held.lease.task}, exc_info=error)
        else:
            outcome = work.result()
        self._leases.settle(held, outcome)

    def _say_idle(self) -> None:
        if not self._idle and not self._leases.held:
            self._idle = True
            log.info("Nothing to do at the moment")

    def _warn(self, error: Error) -> None:
        if time.monotonic() - self._warned > 10.0:
            self._warned = time.monotonic()
            log.warning("Waiting for the master: %s", error.detail)

    async def _leave(self) -> None:
        """Let the photos that are being decoded finish, and report every outcome."""
        works = [held.work for held in self._leases.held.values() if held.work is not None]
        if works:
            log.info("Finishing %d photos in progress", sum(held.started for held in self._leases.held.values()))
            await asyncio.wait(works, timeout=self._drain)
        for held in list(self._leases.held.values()):
            held.abort()
        if works:
            await asyncio.wait(works, timeout=_FLUSH)
        for held in self._leases.held.values():
            if held.outcome is None:  # stopped before it began
                self._leases.settle(held, Returned(lease=held.lease.id))
        if await self._leases.settled(_FLUSH) and await self._leases.reconcile():
            return
        ended = [held for held in self._leases.held.values() if not isinstance(held.outcome, Died)]
        self._workdir.leave([held.lease.id for held in ended])
        if self._leases.held:
            log.warning("The master did not accept the last %d outcomes; their leases expire", len(self._leases.held))
