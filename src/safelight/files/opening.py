"""Open files in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, closing
from typing import Any, Protocol, TypeVar


class Closable(Protocol):
    """A file or something similar."""

    def close(self) -> Any:
        """Release it."""


T = TypeVar("T", bound=Closable)


@asynccontextmanager
async def opened(open: Callable[[], T], threads: Executor | None = None) -> AsyncIterator[T]:
    """Open a file in a thread (None: one of asyncio's) and close it at the end. Raises what `open` raises.

    A caller that is cancelled meanwhile does not wait for the thread; the file is closed as soon as it is open.
    """
    opening = asyncio.get_running_loop().run_in_executor(threads, open)
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise
    with closing(file):
        yield file


def _close(opening: asyncio.Future[T]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
