"""A simulated decoder, which takes some time and acts as the photo says."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Self

from safelight.engine import Output, Probe
from safelight.errors import Code, Error
from safelight.worker.decoder import Job, Result
from simulation.loop import PROCESS
from simulation.photos import BROKEN, KILLER, kind_of, result_of

if TYPE_CHECKING:
    from simulation.world import World

_PROBE = Probe(
    format="png", width=4, height=3, frames=1, mode="srgb", bands=3, bits=8, has_alpha=False, has_profile=False,
    orientation=1, progressive=False,
)  # fmt: skip


class Decoder:
    """A simulated `DecoderPool`."""

    version = "engine 1"
    protections = ()

    def __init__(self, count: int, world: World) -> None:
        self.count = count
        self.restarts: Counter[str] = Counter()
        self._world = world
        self._free = asyncio.Semaphore(count)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def ready(self) -> bool:
        async with self._free:
            return True

    async def process(self, job: Job) -> Result:
        source = job.source if isinstance(job.source, bytes) else job.source.read_bytes()
        kind, rng = kind_of(source), self._world.rng
        async with self._free:
            self._world.note(f"decode {PROCESS.get()} {source[8:24]!r}")
            seconds = rng.choice((0.01, 0.2, 1.0, 4.0)) * rng.uniform(0.5, 1.0)
            await asyncio.sleep(seconds)
        if kind == KILLER:
            raise Error(Code.DECODER_CRASHED, "The decoder died.")
        if kind == BROKEN:
            raise Error(Code.NOT_AN_IMAGE, "That is not a photo.")
        made = Output(
            name="image", data=result_of(source), format="png", media_type="image/png", extension="png", width=4,
            height=3, frames=1,
        )  # fmt: skip
        return Result(outputs=[made], original=_PROBE, seconds=seconds, peak_memory=None)
