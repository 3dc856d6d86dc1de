"""Retry or release a task, and repeat that after a failure that may have hidden its success."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from safelight.client.availability.retrying import retrying
from safelight.client.base import NOT_SENT, Connection
from safelight.errors import Code, Error
from safelight.wire import Task


async def queued_again(
    connection: Connection, path: str, read: Callable[[], Awaitable[Task]], params: Mapping[str, Any] | None = None
) -> Task:
    """Let a task, which `read` returns, wait again. Raises CONFLICT if its state does not allow that.

    A conflict after an attempt whose answer was lost says that this attempt was carried out, so it is no error.
    """
    lost = False

    async def attempt() -> Task:
        nonlocal lost
        try:
            return await connection.call("POST", path, Task, params=params, retry=False)
        except Error as error:
            if lost and error.code is Code.CONFLICT:
                return await read()
            lost = lost or not isinstance(error.__cause__, NOT_SENT)
            raise

    deadline = time.monotonic() + connection.retry_for
    again = retrying(attempt, retry_for=connection.retry_for, deadline=deadline, breaker=connection.breaker)
    return await again  # type: ignore[no-any-return]
