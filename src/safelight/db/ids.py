"""Ids of tasks, leases and webhook deliveries.

The id of a task is `{n}-{key}`, that of a lease on it `{n}-{key}-{attempt}-{token}`, that of a delivery
`{n}-{attempt}-{token}`. The numbers make look-ups cheap, and the random parts (50 bits each) make ids impossible to
guess.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_TWO = [first + second for first in _ALPHABET for second in _ALPHABET]
"""Two characters for each value of ten bits."""
_NUMBER = r"([1-9][0-9]{0,17})"
_RANDOM = r"([a-z2-7]{10})"
_TASK_OR_LEASE = re.compile(rf"{_NUMBER}-{_RANDOM}(?:-{_NUMBER}-{_RANDOM})?")
_DELIVERY = re.compile(rf"{_NUMBER}-{_NUMBER}-{_RANDOM}")


class Reference(NamedTuple):
    """The parts of the id of a task or, with a token, of a lease."""

    n: int
    key: str
    attempt: int = 0
    token: str | None = None


class DeliveryReference(NamedTuple):
    """The parts of the id of a delivery."""

    n: int
    attempt: int
    token: str


def randoms(count: int) -> list[str]:
    """Return random parts of ids, each of 10 characters in base 32."""
    two = _TWO
    return [
        f"{two[n & 1023]}{two[n >> 10 & 1023]}{two[n >> 20 & 1023]}{two[n >> 30 & 1023]}{two[n >> 40 & 1023]}"
        for n in memoryview(os.urandom(8 * count)).cast("Q")
    ]


def parse(id: str) -> Reference | None:
    """Parse the id of a task or a lease; None if it is neither."""
    match = _TASK_OR_LEASE.fullmatch(id)
    if match is None:
        return None
    n, key, attempt, token = match.groups()
    return Reference(int(n), key, int(attempt or 0), token)


def parse_delivery(id: str) -> DeliveryReference | None:
    """Parse the id of a delivery; None if it is not one."""
    match = _DELIVERY.fullmatch(id)
    return None if match is None else DeliveryReference(int(match[1]), int(match[2]), match[3])
