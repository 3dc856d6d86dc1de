"""Decoders: images are decoded apart from the worker, in confined processes or in threads.

`contract` says what a pool of decoders is; `pool` and `threads` are the two kinds. `program` is what runs in a decoder
process, `child` the worker's side of one, `frames` what the two send each other, `sandbox` what confines the program.
"""

from __future__ import annotations

from safelight.worker.decoder.contract import DecoderPool, Job, Result, Settings

__all__ = ["DecoderPool", "Job", "Result", "Settings", "open_pool"]


def open_pool(settings: Settings) -> DecoderPool:
    """Return the pool that the settings ask for, not yet started."""
    if settings.isolation == "thread":
        from safelight.worker.decoder.threads import ThreadPool  # noqa: PLC0415 - brings libvips into this process

        return ThreadPool(settings)
    from safelight.worker.decoder.pool import ProcessPool  # noqa: PLC0415 - not needed where threads are chosen

    return ProcessPool(settings)
