"""The contract of a pool of decoders, which process photos apart from the worker itself.

With `process` isolation, a separate, sandboxed program processes each photo, and whatever a hostile file does to it
affects only that photo. `thread` isolation is for systems without processes, such as a unikernel: the limits of the
engine apply there too, but a crash ends the worker.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, Self

from msgspec import Meta, Struct, field

from safelight.engine import Limits, Output, Probe
from safelight.errors import Code, Error
from safelight.recipe import Recipe

if TYPE_CHECKING:
    from collections import Counter
    from types import TracebackType

_MIB = 1024 * 1024


class Settings(Struct, frozen=True, kw_only=True):
    """The number of decoders, and the limits of each.

    `concurrency` is the number of threads for one photo. `memory_limit` is what a decoder may allocate, in bytes; a
    photo that needs more fails with OUT_OF_MEMORY. A decoder is replaced after `recycle_after` photos, or when it holds
    more than `recycle_memory` bytes between two of them. A new decoder must be ready within `start_limit` seconds.
    `sandbox` says whether a decoder that lacks a part of its sandbox may work (`prefer`) or not (`require`). The empty
    working directory of the decoders is made in `directory` (default: the system's for temporary files). With threads,
    only `count` and `concurrency` apply.
    """

    isolation: Literal["process", "thread"] = "process"
    count: Annotated[int, Meta(ge=1, le=1024)] = field(default_factory=lambda: os.cpu_count() or 1)
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 1
    memory_limit: Annotated[int, Meta(ge=256 * _MIB)] = 2048 * _MIB
    recycle_after: Annotated[int, Meta(ge=1)] = 10_000
    recycle_memory: Annotated[int, Meta(ge=64 * _MIB)] = 512 * _MIB
    start_limit: Annotated[float, Meta(gt=0)] = 60.0
    sandbox: Literal["require", "prefer"] = "prefer"
    directory: Path | None = None


class Job(Struct, frozen=True, kw_only=True):
    """One photo to process. `time_limit` is in seconds of wall-clock time, without waiting for a free decoder.

    `threads` is how many outputs a decoder process may make at the same time, if its memory limit allows that. The
    results do not depend on it.
    """

    source: bytes | Path
    recipe: Recipe
    limits: Limits = Limits()
    time_limit: Annotated[float, Meta(gt=0)] = 60.0
    threads: Annotated[int, Meta(ge=1)] = 1


class Result(Struct, frozen=True, kw_only=True):
    """The result of a job: the outputs in the order of the recipe, and a description of the original.

    `seconds` is the time in the engine. `peak_memory` is the largest resident size of the decoder during the job, in
    bytes, None if it is not known.
    """

    outputs: list[Output]
    original: Probe
    seconds: float
    peak_memory: int | None


class NoDecoderError(Error):
    """No decoder can be started, for which no photo is to blame."""

    def __init__(self, reason: str) -> None:
        super().__init__(Code.UNAVAILABLE, f"No decoder can be started: {reason}")


class DecoderPool(Protocol):
    """A pool of decoders. Entering it starts them, or raises NoDecoderError; leaving it ends them all.

    `version` is the version of the engine. `protections` says what confines a decoder. `restarts` counts the decoders
    that were replaced, by reason: the code of an error, recycled, cancelled, or died_idle.
    """

    count: int
    version: str
    protections: tuple[str, ...]
    restarts: Counter[str]

    async def process(self, job: Job) -> Result:
        """Process a photo, waiting while every decoder is busy.

        Raises what `engine.process` raises, and OUT_OF_MEMORY, TIMED_OUT, DECODER_CRASHED (its extra has `signal` or
        `exit_status`), or `NoDecoderError`. None of these affects another job. Cancelling ends the decoder
        of this job, and another one replaces it.
        """

    async def ready(self) -> bool:
        """Return whether a decoder can take a photo; start one if there is none. It waits while all are busy."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
