"""Decoders, which process photos apart from the worker, in sandboxed processes or in threads.

`contract` defines a pool of decoders; `pool` and `threads` are the two kinds. `program` runs in a decoder process,
`child` is the worker's side of it, `frames` are the messages between them, and `sandbox` confines the program.
"""

from __future__ import annotations

from safelight.worker.decoder.contract import DecoderPool, Job, NoDecoderError, Result, Settings

__all__ = ["DecoderPool", "Job", "NoDecoderError", "Result", "Settings", "open_pool"]


def open_pool(settings: Settings) -> DecoderPool:
    """Return the pool that the settings ask for, not yet started."""
    if settings.isolation == "thread":
        from safelight.worker.decoder.threads import ThreadPool  # noqa: PLC0415 - brings libvips into this process

        return ThreadPool(settings)
    from safelight.worker.decoder.pool import ProcessPool  # noqa: PLC0415 - not needed where threads are chosen

    return ProcessPool(settings)
