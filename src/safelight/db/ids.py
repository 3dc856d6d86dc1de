"""Ids of tasks, leases and webhook deliveries.

The id of a task is `{n}-{key}`, that of a lease on it `{n}-{key}-{attempt}-{token}`, that of a delivery
`{n}-{attempt}-{token}`. The numbers make ids cheap to look up, the random parts (50 bits each) impossible to guess.
"""

from __future__ import annotations

import base64
import os
import re
from typing import NamedTuple

_LENGTH = 10
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
    text = base64.b32encode(os.urandom(count * 25 // 4 + 1)).decode().lower()
    return [text[start : start + _LENGTH] for start in range(0, count * _LENGTH, _LENGTH)]


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
