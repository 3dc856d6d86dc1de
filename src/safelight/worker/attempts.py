"""One attempt at one task: fetch the input, make every output, store them, and report the outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from safelight import logs, tracing
from safelight.client.availability.retrying import retrying
from safelight.client.shared import SharedBlobs
from safelight.client.storage import StorageClient
from safelight.engine.limits import Limits
from safelight.errors import Code, Error, lacks_memory
from safelight.wire import Died, Failed, Failure, Finished, Lease, Outcome, Output, Returned
from safelight.worker import decoder
from safelight.worker.inputs import Inputs, transient
from safelight.worker.leases import Held
from safelight.worker.metrics import Metrics
from safelight.worker.outage import Outage, OutageError
from safelight.worker.prefetch import Prefetch
from safelight.worker.recipes import parsed
from safelight.worker.workdir import Workdir

if TYPE_CHECKING:
    from safelight import engine

log = logging.getLogger(__name__)

_DEATHS = frozenset({Code.OUT_OF_MEMORY, Code.TIMED_OUT, Code.DECODER_CRASHED})
_OF_THIS_OUTPUT = frozenset({Code.TOO_LARGE, Code.INVALID_REQUEST, Code.DIGEST_MISMATCH})
_RETRY_FOR = 10.0


class Attempts:
    """Makes as many attempts at a time as there are slots, and fetches inputs and stores outputs meanwhile."""

    def __init__(
        self,
        pool: decoder.DecoderPool,
        storage: StorageClient,
        shared: SharedBlobs,
        inputs: Inputs,
        workdir: Workdir,
        *,
        limits: Limits,
        time_limit: float,
        threads: int,
        prefetch: Prefetch,
        metrics: Metrics,
        outage: Outage,
    ) -> None:
        self._pool = pool
        self._outage = outage
        self._storage = storage
        self._shared = shared
        self._inputs = inputs
        self._workdir = workdir
        self._limits = limits
        self._time_limit = time_limit
        self._threads = threads
        self._prefetch = prefetch
        self._metrics = metrics

    async def make(self, held: Held) -> Outcome:
        """Make the attempt of a lease and return its outcome. Cancelling stops the work at once."""
        lease = held.lease
        start = time.monotonic()
        outcome: Outcome
        try:
            result = await self._decoded(held)
            with tracing.span("store result", parent=held.span.traceparent):
                outputs = await self._stored(result.outputs)
        except OutageError as error:
            self._outage.begin(error)
            outcome = Returned(lease=lease.id)
        except OSError as error:  # an error of this worker's own disk, memory or descriptors
            outcome = self._given_back(lease, error.strerror or str(error))
        except Error as error:
            outcome = _outcome_of(lease, error, time.monotonic() - start)
            self._log_failure(lease, outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, the task must not be left without an outcome
            if lacks_memory(error):
                outcome = self._given_back(lease, "it has no memory left")
            else:
                outcome = _unexpected(lease, error, time.monotonic() - start)
        else:
            outcome = Finished(lease=lease.id, outputs=outputs, engine=self._pool.version, seconds=result.seconds)
            self._outage.succeeded()
            self._metrics.seconds.labels(self._metrics.label(lease.recipe)).observe(result.seconds)
            logs.each(log, "        done", task=lease.task, seconds=round(result.seconds, 3))
        self._metrics.attempts.labels(type(outcome).__name__.lower(), self._metrics.label(lease.recipe)).inc()
        return outcome

    def _given_back(self, lease: Lease, why: str) -> Returned:
        """Give back a task that failed because of this worker's machine, and take no more for a while."""
        self._outage.begin(OutageError(Error(Code.UNAVAILABLE, f"This worker's machine failed: {why}.")))
        return Returned(lease=lease.id)

    async def _decoded(self, held: Held) -> decoder.Result:
        lease = held.lease
        async with AsyncExitStack() as stack:
            async with self._prefetch.room(lease.input.size if lease.input else 0):
                with tracing.span("fetch", parent=held.span.traceparent):
                    source = await stack.enter_async_context(self._inputs.opened(lease))
                await stack.enter_async_context(self._prefetch.slot())
            recipe = await parsed(bytes(lease.spec))  # in the slot, since a recipe may be larger than its photo
            held.started = True
            logs.each(log, "Working on task %s", lease.task, task=lease.task, attempt=lease.attempt)
            logs.each(log, "        processing %s", lease.filename or lease.task, task=lease.task)
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            self._metrics.bytes_in.inc(size)
            threads = self._prefetch.share(self._threads)
            job = decoder.Job(
                source=source, recipe=recipe, limits=self._limits, time_limit=self._time_limit, threads=threads
            )
            with self._workdir.decoding(lease.id), tracing.span("process", parent=held.span.traceparent):
                try:
                    result = await self._pool.process(job)
                except decoder.NoDecoderError as error:
                    raise OutageError(error) from error
            self._prefetch.learn(result.seconds)
            return result

    async def _stored(self, made: list[engine.Output]) -> list[Output]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._put(each)) for each in made]
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _put(self, made: engine.Output) -> Output:
        try:
            blob = await self._shared.put(made.data)
            if blob is None:
                blob = await retrying(lambda: self._storage.put(made.data), retry_for=_RETRY_FOR)
        except Error as error:
            if error.code in _OF_THIS_OUTPUT:
                raise transient(error) from error
            raise OutageError(error, size=len(made.data)) from error
        self._metrics.bytes_out.inc(blob.size)
        return Output(
            name=made.name,
            digest=blob.digest,
            size=blob.size,
            media_type=made.media_type,
            width=made.width,
            height=made.height,
            frames=made.frames,
            notes=list(made.notes),
        )

    def _log_failure(self, lease: Lease, outcome: Outcome) -> None:
        match outcome:
            case Died(failure=failure):
                log.warning("        the decoder died: %s", failure.detail, extra=_fields(lease, failure))
            case Failed(failure=failure, permanent=True):
                log.info("        failed: %s", failure.detail, extra=_fields(lease, failure))
            case Failed(failure=failure):
                log.warning("        failed, to be retried: %s", failure.detail, extra=_fields(lease, failure))


def _fields(lease: Lease, failure: Failure) -> dict[str, str]:
    return {"task": lease.task, "code": failure.code}


def _unexpected(lease: Lease, error: Exception, seconds: float) -> Outcome:
    log.error("Unexpected error in task %s", lease.task, extra={"task": lease.task}, exc_info=error)
    detail = f"Unexpected error in the worker: {type(error).__name__}. Its log says more."
    failure = Failure(code=Code.INTERNAL, detail=detail)
    return Failed(lease=lease.id, failure=failure, permanent=False, seconds=seconds)


def _outcome_of(lease: Lease, error: Error, seconds: float) -> Outcome:
    failure = Failure.of(error)
    if error.code in _DEATHS:
        return Died(lease=lease.id, failure=failure, seconds=seconds)
    return Failed(lease=lease.id, failure=failure, permanent=not error.transient, seconds=seconds)
