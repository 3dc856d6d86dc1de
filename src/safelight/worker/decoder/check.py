"""`safelight worker --check-sandbox`: print what confines a decoder here, and its attempts to escape."""

from __future__ import annotations

import asyncio
import sys

from safelight.errors import Error
from safelight.worker.decoder import answers
from safelight.worker.decoder.contract import Settings
from safelight.worker.decoder.pool import ProcessPool
from safelight.worker.decoder.sandbox import escapes


def check_sandbox(memory_limit: int) -> int:
    """Start one decoder as a worker does, and print how it is confined. Return 0 if nothing is missing, else 1."""
    try:
        pool = asyncio.run(_started(Settings(count=1, memory_limit=memory_limit)))
    except Error as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    gaps = set(pool.escapes)
    lines = [f"held     {protection}" for protection in pool.protections]
    lines += [f"missing  {part}" for part in pool.missing]
    lines += [f"{'OPEN' if name in gaps else 'refused':<8} {name}" for name in escapes.names()]
    incomplete = bool(gaps or pool.missing)
    lines.append("The sandbox is not complete." if incomplete else "The sandbox is complete.")
    sys.stdout.write("".join(f"{answers.text(line)}\n" for line in lines))
    return int(incomplete)


async def _started(settings: Settings) -> ProcessPool:
    async with ProcessPool(settings) as pool:
        return pool
