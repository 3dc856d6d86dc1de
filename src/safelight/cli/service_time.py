"""The time of the service. By the clock of this machine, which may be wrong, workers that are there could look gone."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

_TOLERATED = 4.0
"""Seconds of difference that are not corrected: an answer tells whole seconds, and takes a while."""
_ahead = 0.0
"""By how many seconds the clock of this machine is ahead."""


def now() -> float:
    """Return the Unix time of the service that answered last, or of this machine before any has."""
    return time.time() - _ahead


def learn(date: str) -> None:
    """Learn the time from the header `Date` of an answer, if it has one."""
    global _ahead  # noqa: PLW0603 - what prints knows no client
    try:
        told = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return
    found = time.time() - told
    _ahead = found if abs(found) > _TOLERATED else 0.0
