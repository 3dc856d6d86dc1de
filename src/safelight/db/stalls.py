"""Track stalls, in which db itself could not keep up, so that no lease expires because of them.

A stall is a time in which db could not take heartbeats: its process was suspended, its event loop was blocked, a flush
was slow, or commits failed. A lease expires only once db has run for the lease's whole duration without a stall that
matters to it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

TICK = 0.1
"""Seconds between two signs of life of the event loop."""
_LEAST = 0.5
_PART = 6
"""A stall matters to a lease if it takes a sixth of the lease's duration, and at least half a second."""
_REMEMBERED = 64


class Stalls:
    """The latest stalls. `tick` is called on the event loop, everything else on the database's thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._ticked: float | None = None
        self._failing: float | None = None
        self._stalls: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        """The end and the length of each stall."""

    def tick(self) -> None:
        """Record that the event loop runs."""
        now = self._monotonic()
        if self._ticked is not None:
            self._note(now, now - self._ticked)
        self._ticked = now

    def committed(self, began: float) -> None:
        """Record a commit that began at a time of the monotonic clock."""
        now = self._monotonic()
        self._note(now, now - (began if self._failing is None else min(began, self._failing)))
        self._failing = None

    def failed(self, began: float) -> None:
        """Record a failed commit; db is stalled until one succeeds."""
        if self._failing is None:
            self._failing = began

    def hold(self, duration: float) -> float:
        """Return for how many more seconds no lease of a duration may expire; 0 if it may now."""
        least = max(_LEAST, duration / _PART)
        now = self._monotonic()
        if self._failing is not None or (self._ticked is not None and now - self._ticked >= least):
            return duration
        end = max((end for end, length in self._stalls if length >= least), default=-math.inf)
        return max(0.0, end + duration - now)

    def _note(self, end: float, length: float) -> None:
        if length >= _LEAST:
            self._stalls.append((end, length))
