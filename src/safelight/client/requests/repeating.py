"""Change or delete something, and repeat that after a failure that may have hidden its success."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from safelight.client.availability.failures import NOT_SENT
from safelight.client.availability.retrying import retrying
from safelight.client.base import Connection
from safelight.errors import Code, Error
from safelight.wire import Task

T = TypeVar("T")


async def queued_again(
    connection: Connection, path: str, read: Callable[[], Awaitable[Task]], params: Mapping[str, Any] | None = None
) -> Task:
    """Let a task, which `read` returns, wait again. Raises CONFLICT if its state does not allow that.

    A conflict after an attempt whose answer was lost says that this attempt was carried out, so it is no error.
    """

    async def attempt() -> Task:
        return await connection.call("POST", path, Task, params=params, retry=False)

    return await _repeated(connection, attempt, Code.CONFLICT, read)


async def deleted(
    connection: Connection,
    path: str,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Delete something. Raises NOT_FOUND, but not after an attempt whose answer was lost, which may have deleted it."""

    async def attempt() -> None:
        await connection.call("DELETE", path, bytes, params=params, headers=headers, retry=False)

    async def gone() -> None:
        return None

    await _repeated(connection, attempt, Code.NOT_FOUND, gone)


async def _repeated(
    connection: Connection, attempt: Callable[[], Awaitable[T]], done: Code, read: Callable[[], Awaitable[T]]
) -> T:
    """Repeat an attempt. If it is refused with `done` after one whose answer was lost, return what `read` returns."""
    lost = False

    async def again() -> T:
        nonlocal lost
        try:
            return await attempt()
        except Error as error:
            if lost and error.code is done:
                return await read()
            lost = lost or not isinstance(error.__cause__, NOT_SENT)
            raise

    deadline = time.monotonic() + connection.retry_for
    repeating = retrying(again, retry_for=connection.retry_for, deadline=deadline, breaker=connection.breaker)
    return await repeating  # type: ignore[no-any-return]
