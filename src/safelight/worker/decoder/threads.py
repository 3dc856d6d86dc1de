"""Decoders as threads, for systems without processes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from safelight import engine
from safelight.errors import Code, Error
from safelight.worker.decoder import awake
from safelight.worker.decoder.contract import Result

if TYPE_CHECKING:
    from types import TracebackType

    from safelight.worker.decoder.contract import Job, Settings


class ThreadPool:
    """See `contract.DecoderPool`. A job that exceeds its time is asked to stop, and keeps its thread until it does."""

    def __init__(self, settings: Settings) -> None:
        self.count = settings.count
        self.version = engine.VERSION
        self.protections: tuple[str, ...] = ()
        self.restarts: Counter[str] = Counter()
        self._free = asyncio.Semaphore(settings.count)
        self._threads = ThreadPoolExecutor(settings.count, thread_name_prefix="decoder")
        engine.set_concurrency(settings.concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def process(self, job: Job) -> Result:
        """See `contract.DecoderPool`."""
        await self._free.acquire()
        stop = engine.Stop()
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, _compute, job, stop)
        except BaseException:  # the thread could not be started, but a later one may still find the job
            stop.stop()
            self._free.release()
            raise
        work.add_done_callback(self._finished)
        try:
            async with awake.timeout(job.time_limit):
                return await asyncio.shield(work)
        except TimeoutError:
            stop.stop()
            detail = f"The photo took longer than {job.time_limit:g} s."
            raise Error(Code.TIMED_OUT, detail, limit=job.time_limit) from None
        except asyncio.CancelledError:
            stop.stop()
            raise

    async def ready(self) -> bool:
        """See `contract.DecoderPool`. Threads need no start."""
        async with self._free:
            return True

    def _finished(self, work: asyncio.Future[Result]) -> None:
        self._free.release()
        if not work.cancelled():
            work.exception()  # retrieve the error, since the caller may have left


def _compute(job: Job, stop: engine.Stop) -> Result:
    started = time.perf_counter()
    try:
        made = engine.process(job.source, job.recipe, job.limits, stop=stop)
    except MemoryError:
        raise Error(Code.OUT_OF_MEMORY, "The photo needs more memory than there is. Upload a smaller one.") from None
    seconds = time.perf_counter() - started
    return Result(outputs=made.outputs, original=made.original, seconds=seconds, peak_memory=None)
