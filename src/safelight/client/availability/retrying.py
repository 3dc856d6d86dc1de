"""Repeat a call after transient failures, but not while its service has failed for long: a circuit breaker."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection
from typing import Any

from safelight.client.availability.liveness import UnresponsiveError, while_waiting
from safelight.errors import TRANSIENT, Code, Error

_LONGEST_WAIT = 86400.0
_PATIENCE = 2.0
"""Seconds for which a call retries before `while_waiting` is called."""
_OPEN_FOR = 30.0
"""Seconds after the last failure for which calls do not wait. Then the next failure may be a short one again."""


class Breaker:
    """Says whether calls should wait for a service that answers with a transient failure.

    It opens when a call has retried for its whole time in vain. From then on each call makes one attempt, whose failure
    its caller learns at once. The first success closes it.
    """

    def __init__(self) -> None:
        self._until = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether the service has failed for long, and lately."""
        return time.monotonic() < self._until

    def failed(self) -> None:
        """Record a failure after which nothing is tried again."""
        self._until = time.monotonic() + _OPEN_FOR

    def answered(self) -> None:
        """Record a success."""
        self._until = -math.inf


async def retrying(
    attempt: Callable[[], Any],
    *,
    retry_for: float,
    deadline: float | None = None,
    breaker: Breaker | None = None,
    codes: Collection[Code] = TRANSIENT - {Code.INTERNAL},
) -> Any:
    """Call `attempt` until it succeeds or fails with a permanent error; pauses grow from 50 ms to 2 s.

    `retry_for` counts, in seconds, from the first failure, so that a long upload that is interrupted can be retried.
    Nothing is called again after `deadline`, a time of the monotonic clock, nor while the `breaker` is open. `codes`
    are those of transient errors.
    """
    pause, end = 0.05, math.inf if deadline is None else deadline
    first: float | None = None
    while True:
        try:
            answer = await attempt()
        except Error as error:
            asked = _seconds(error.extra.get("retry_after"))
            delay = max(asked, pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            now = time.monotonic()
            if first is None:
                first, end = now, min(end, now + retry_for)
            final = error.code not in codes or isinstance(error, UnresponsiveError)
            over = now + delay > end or (breaker is not None and breaker.is_open)
            if over and breaker is not None and error.code is Code.UNAVAILABLE:
                breaker.failed()
            if final or over:
                raise
            if now + delay - first > _PATIENCE and (tell := while_waiting.get()) is not None:
                tell(error, end - now)
        else:
            if breaker is not None:
                breaker.answered()
            return answer
        await asyncio.sleep(delay)
        pause = min(pause * 2, 2.0)


def _seconds(asked: object) -> float:
    """Return how long a service asks to wait, in seconds; an invalid value counts as 0."""
    return float(asked) if isinstance(asked, int | float) and 0 <= asked < _LONGEST_WAIT else 0.0
