"""Store in a file how long storage has run, and its observations of ages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from safelight import background
from safelight.steady import Ages
from safelight.storage.files import replace_durably

log = logging.getLogger(__name__)

_EVERY = 60.0


@asynccontextmanager
async def kept_ages(path: Path) -> AsyncIterator[Ages]:
    """Continue from the file, and write it from time to time and at the end."""
    ages = Ages(await asyncio.to_thread(_read, path))
    try:
        async with background.running(lambda: _keep(ages, path), "ages"):
            yield ages
    finally:
        await _write(ages, path, due=False)


async def _keep(ages: Ages, path: Path) -> None:
    while True:
        await _write(ages, path)
        await asyncio.sleep(_EVERY)


async def _write(ages: Ages, path: Path, *, due: bool = True) -> None:
    text = ages.kept(due=due)
    if text is None:
        return
    try:
        await asyncio.to_thread(replace_durably, path, text.encode())
    except OSError as error:
        log.warning("%s cannot be written: %s. Old data stays longer.", path, error.strerror)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
