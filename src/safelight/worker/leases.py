"""Request, extend and settle the leases that a worker holds, many in one request.

A lease is held from the answer that grants it until the answer that settles its outcome. Until then the worker must
name it in its requests, because db returns at once every lease that its holder does not name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from safelight import background, tracing
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import Failed, Failure, Heartbeat, Lease, LeaseRequest, Outcome, Returned, Settled, WorkerInfo
from safelight.worker.metrics import Metrics

log = logging.getLogger(__name__)

_BATCH = 200
"""The most outcomes in one request."""
_UNKNOWN = (Code.UNAUTHENTICATED, Code.FORBIDDEN)
_GATHER = 0.02
"""Seconds for which to gather outcomes into one request while other attempts are in progress."""
_ABANDON = 0.25
"""Seconds for which a stopping worker waits for the answer to its request for leases."""
_RECONCILE = 2.0
_LONGEST_WAIT = 20.0


class Held:
    """A lease that this worker holds; `outcome` is the one to settle."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.outcome: Outcome | None = None
        self.lost = False
        self.started = False
        """Whether decoding has begun. When the worker stops, such an attempt may finish; the others are returned."""
        self.work: asyncio.Task[Outcome] | None = None
        self.span = tracing.begin(
            "lease", lease.traceparent, {"safelight.task": lease.task, "safelight.attempt": lease.attempt}
        )
        self.settling = tracing.Open()

    def abort(self) -> None:
        """Stop the attempt."""
        if self.work is not None:
            self.work.cancel()


class Leases:
    """Requests leases from the master, extends them and reports their outcomes."""

    def __init__(self, client: Client, info: Callable[[], WorkerInfo], seconds: float, metrics: Metrics) -> None:
        self._client = client
        self._info = info
        self._seconds = seconds
        self._metrics = metrics
        self._poll: asyncio.Task[list[Lease]] | None = None
        self._outcomes = asyncio.Event()
        self.leaving = False
        """Whether the worker stops: what it hands back then is waited for, and all of it is there at once."""
        self.held: dict[str, Held] = {}
        self.changed = asyncio.Event()
        """Set when a lease is no longer held."""

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Send heartbeats and outcomes until the context ends."""
        async with (
            background.running(self._heartbeats, "heartbeats"),
            background.running(self._settlements, "outcomes"),
        ):
            yield

    async def take(self, n: int) -> list[Held]:
        """Wait for up to `n` leases and hold them. Raises the master's errors; `abandon` ends the wait without leases.

        The wait is shorter than the time that any lease has left after its last heartbeat. So the request of a hanging
        worker ends before its leases expire, and cannot be answered with the same tasks.
        """
        self._poll = asyncio.create_task(self._request(n, min(_LONGEST_WAIT, self._seconds / 2)))
        try:
            leases = await self._poll
        except asyncio.CancelledError:
            if self._poll.cancelled() and not _being_cancelled():
                return []
            self._poll.cancel()
            raise
        finally:
            self._poll = None
        return [self._hold(lease) for lease in leases]

    async def abandon(self) -> None:
        """End the open request for leases, and return the leases that it was granted but has not received."""
        if self._poll is None:
            return
        await asyncio.wait([self._poll], timeout=_ABANDON)
        if self._poll is None or self._poll.done():
            return
        self._poll.cancel()
        await self.reconcile()

    async def reconcile(self) -> bool:
        """Tell the master which leases are held, so that leases that never arrived here are returned now.

        Return False if no master answers.
        """
        try:
            async with asyncio.timeout(_RECONCILE):
                await self._request(0, 0.0)
        except (Error, TimeoutError):
            return False
        return True

    async def return_leases_of(self, worker: str, decoding: list[str], unreported: list[str] | None) -> None:
        """Return the leases of a worker that died, except for those it was decoding. Raises the master's errors.

        With `unreported`, the worker stopped while no master answered. Then the deaths of these leases are taken back,
        and those of leases that never reached it.
        """
        if unreported is not None:
            await self._client.heartbeat(Heartbeat(worker=WorkerInfo(id=worker), holding=unreported))
        await self._client.lease(LeaseRequest(worker=WorkerInfo(id=worker), n=0, holding=decoding))

    def settle(self, held: Held, outcome: Outcome) -> None:
        """End an attempt. Its outcome is sent to the master together with others."""
        held.outcome = outcome
        self._outcomes.set()
        held.settling.end()
        held.settling = tracing.begin("settle", held.span.traceparent)

    async def settled(self, timeout: float) -> bool:
        """Wait until no lease is held. Return False if that takes longer than `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.held:
                    self.changed.clear()
                    await self.changed.wait()
        return not self.held

    async def _request(self, n: int, wait: float) -> list[Lease]:
        request = LeaseRequest(worker=self._info(), n=n, wait=wait, seconds=self._seconds, holding=list(self.held))
        return await self._client.lease(request)

    def _hold(self, lease: Lease) -> Held:
        held = self.held[lease.id] = Held(lease)
        self._metrics.held.set(len(self.held))
        return held

    def _drop(self, held: Held) -> None:
        self.held.pop(held.lease.id, None)
        held.settling.end()
        held.span.end()
        self._metrics.held.set(len(self.held))
        self.changed.set()

    def _lose(self, held: Held, reason: str) -> None:
        held.lost = True
        held.abort()
        self._drop(held)
        self._metrics.lost.inc()
        task = held.lease.task
        log.warning("Lost the lease on task %s: %s; its result is discarded", task, reason, extra={"task": task})

    async def _heartbeats(self) -> None:
        while True:
            await self._beat()

    async def _beat(self) -> None:
        """Extend every lease, three times as often as necessary, and stop the attempts of lost leases."""
        interval = self._seconds / 3
        sent = time.monotonic()
        for each in self.held.values():
            if each.outcome is None and (each.work is None or each.work.done()):  # memory ran out in between
                self.settle(each, Returned(lease=each.lease.id))
        names = list(self.held)
        try:
            async with asyncio.timeout(interval):
                answer = await self._client.heartbeat(
                    Heartbeat(worker=self._info(), holding=names, seconds=self._seconds)
                )
        except (Error, TimeoutError) as error:
            log.debug("No heartbeat: %s", error)
            await asyncio.sleep(min(1.0, interval))
            return
        lost = set(answer.lost)
        for name in names:
            held = self.held.get(name)
            if held is None:
                continue
            if name in lost and held.outcome is None:  # its outcome is being sent, and is answered separately
                self._lose(held, "it expired, or the task was cancelled")
        await asyncio.sleep(max(0.0, sent + interval - time.monotonic()))

    async def _settlements(self) -> None:
        while True:
            await self._settle()

    async def _settle(self) -> None:
        """Send the waiting outcomes until the master has answered each."""
        if all(held.outcome is None for held in self.held.values()):  # otherwise sending them has failed
            await self._outcomes.wait()
        if not self.leaving and any(held.outcome is None for held in self.held.values()):
            await asyncio.sleep(_GATHER)  # more may follow soon; a single or last outcome does not wait
        self._outcomes.clear()
        pause, size = 0.05, _BATCH
        while waiting := [held for held in self.held.values() if held.outcome is not None][:size]:
            try:
                async with asyncio.timeout(max(1.0, self._seconds / 3)):
                    answers = await self._client.settle([held.outcome for held in waiting if held.outcome is not None])
            except (Error, TimeoutError) as error:
                # A master that does not know the worker now, such as while the cluster key is changed, may do so again.
                refused = isinstance(error, Error) and not error.transient and error.code not in _UNKNOWN
                if isinstance(error, Error) and refused and len(waiting) == 1:
                    self._refuse(waiting[0], error)
                    continue
                # Only db knows whether a lease has expired, so keep trying while it or the master is away.
                log.warning("Outcomes could not be reported yet: %s", error)
                # After a refusal outcomes are sent one by one, so that one of them cannot hold up the others.
                size = 1 if refused else _BATCH
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            self._take_answers(answers)
            pause = 0.05

    def _take_answers(self, answers: list[Settled]) -> None:
        for answer in answers:
            held = self.held.get(answer.lease)
            if held is None:
                continue
            if answer.problem is None:
                self._drop(held)
            elif answer.problem.get("code") == Code.LEASE_LOST:
                self._lose(held, str(answer.problem.get("detail")))
            else:
                self._refuse(held, Error.from_problem(answer.problem, 400))

    def _refuse(self, held: Held, error: Error) -> None:
        """Turn an outcome that the master refuses into a failure, so that the task is not attempted forever."""
        log.error("The outcome of task %s was refused: %s", held.lease.task, error, extra={"task": held.lease.task})
        if isinstance(held.outcome, Failed):
            self._drop(held)
            return
        failure = Failure(code=Code.INTERNAL, detail=f"The result could not be recorded: {error.detail}")
        self.settle(held, Failed(lease=held.lease.id, failure=failure, permanent=False))


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
