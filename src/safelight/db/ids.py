"""Ids of tasks, leases and webhook deliveries.

A task is `{n}-{key}`, a lease on it `{n}-{key}-{attempt}-{token}`, a delivery `{n}-{attempt}-{token}`. The numbers make
them cheap to look up, the random parts (50 bits each) impossible to guess.
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
    """What an id names: a task, or a lease where there is a token."""

    n: int
    key: str
    attempt: int = 0
    token: str | None = None


class DeliveryReference(NamedTuple):
    """What the id of a delivery names."""

    n: int
    attempt: int
    token: str


def randoms(count: int) -> list[str]:
    """Return random parts, each 10 characters of base 32."""
    text = base64.b32encode(os.urandom(count * 25 // 4 + 1)).decode().lower()
    return [text[start : start + _LENGTH] for start in range(0, count * _LENGTH, _LENGTH)]


def parse(id: str) -> Reference | None:
    """Read the id of a task or a lease; None where it is neither."""
    match = _TASK_OR_LEASE.fullmatch(id)
    if match is None:
        return None
    n, key, attempt, token = match.groups()
    return Reference(int(n), key, int(attempt or 0), token)


def parse_delivery(id: str) -> DeliveryReference | None:
    """Read the id of a delivery; None where it is none."""
    match = _DELIVERY.fullmatch(id)
    return None if match is None else DeliveryReference(int(match[1]), int(match[2]), match[3])
