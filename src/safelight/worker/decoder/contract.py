"""Computing pictures apart from the worker that serves them: the contract, and the choice of how.

`process` isolation gives each picture to a separate, confined program: whatever a hostile file does to it is
charged to that one picture. `thread` isolation is for places without processes (a virtual machine that runs only
the worker); there the limits of the engine hold, and a crash takes the worker along.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, Self

from msgspec import Meta, Struct, field

from safelight.engine import Limits, Output, Probe
from safelight.recipe import Recipe

if TYPE_CHECKING:
    from collections import Counter
    from types import TracebackType

_MIB = 1024 * 1024


class Settings(Struct, frozen=True, kw_only=True):
    """How many decoders, and what each may use.

    `concurrency`: threads for one picture. `memory_limit`: what a decoder may allocate (bytes); a picture that needs
    more fails with OUT_OF_MEMORY. A decoder is replaced after `recycle_after` pictures, or when it holds more than
    `recycle_memory` bytes between two. `start_limit`: seconds until a new decoder must be ready. `sandbox`: whether a
    decoder that lacks a part of its sandbox may work (`prefer`) or not (`require`). `directory`: where the decoders'
    empty working directory is made (default: the system's for temporary files). With threads only `count` and
    `concurrency` apply.
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
    """One picture to compute. `time_limit`: seconds of wall-clock time, waiting for a free decoder not counted."""

    source: bytes | Path
    recipe: Recipe
    limits: Limits = Limits()
    time_limit: Annotated[float, Meta(gt=0)] = 60.0


class Result(Struct, frozen=True, kw_only=True):
    """What came of a job: the outputs in the recipe's order, what the upload was, and what it cost.

    `seconds` is the time in the engine; `peak_memory` the decoder's largest resident size during the job (bytes),
    None where that is not known.
    """

    outputs: list[Output]
    original: Probe
    seconds: float
    peak_memory: int | None


class DecoderPool(Protocol):
    """A number of decoders. Enter it to start them (Error UNAVAILABLE where they cannot), leave it to end them all.

    `version` is the engine's, for the key of a stored result; `protections` says what confines a decoder;
    `restarts` counts the decoders that were replaced, by reason (an error's code, recycled, cancelled, died_idle).
    """

    count: int
    version: str
    protections: tuple[str, ...]
    restarts: Counter[str]

    async def process(self, job: Job) -> Result:
        """Compute a picture; waits while every decoder is busy.

        Raises what `engine.process` raises, and OUT_OF_MEMORY, TIMED_OUT, DECODER_CRASHED (`signal` or `exit_status`
        in its extra), UNAVAILABLE (no decoder starts; worth a retry). None of it touches another job. Cancelling
        ends the decoder at work, and another takes its place.
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
