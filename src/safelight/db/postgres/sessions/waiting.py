"""Run calls, which are plain functions that wait for the server, each in a greenlet on the event loop's thread.

With SQLite the same functions run on a thread. Here, a thread would have to reacquire the interpreter's lock after each
statement, and wait for a busy event loop each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable within a function that `run` runs, and return the result."""
    parent = getcurrent().parent
    assert parent is not None, "only a function that `run` runs can wait"
    result: T = parent.switch(awaitable)
    return result


async def run(function: Callable[[], T]) -> T:
    """Run a function that may `wait`, and return its result."""
    current = greenlet(function)
    result: Any = current.switch()
    while not current.dead:
        try:
            value = await result
        except BaseException as error:  # noqa: BLE001 - the function decides
            result = current.throw(error)
        else:
            result = current.switch(value)
    return result  # type: ignore[no-any-return]
