"""Decide which failed sign-ins to write into the audit log, so that attacks are visible but cannot fill it."""

from __future__ import annotations

import time

_EACH = 5.0
"""Failures of one address that may be written at once, and then one a minute."""
_ALL = 60.0
"""The same for all addresses together, and then one a second."""
_MOST_ADDRESSES = 10_000


class Refusals:
    """Token buckets of entries, for each address and for all together."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}
        self._left_out = 0

    def admit(self, address: str, now: float | None = None) -> int | None:
        """Count a failure. Return how many before it were left out, or None if this one is left out too."""
        moment = time.monotonic() if now is None else now
        if self._take(address, _EACH, 1 / 60, moment) and self._take("", _ALL, 1.0, moment):
            left_out, self._left_out = self._left_out, 0
            return left_out
        self._left_out += 1
        return None

    def _take(self, address: str, most: float, rate: float, now: float) -> bool:
        left, at = self._buckets.pop(address, (most, now))
        left = min(most, left + (now - at) * rate)
        self._buckets[address] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _MOST_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]  # the address that has been silent for longest
        return left >= 1
