"""Durations and sizes as people type them."""

from __future__ import annotations

import re

from safelight.errors import Code, Error

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "B": 1} | {f"{p}{s}": 1024**n for n, p in enumerate("KMGT", 1) for s in ("", "B", "iB")}


def seconds(text: str) -> float:
    """Read a duration, which has a unit: nobody knows what 30 stands for. Raises INVALID_REQUEST."""
    return _number(text, _SECONDS, "30d, 12h or 90s")


def limited(text: str, flag: str, *, days: int, zero: bool = False) -> float:
    """Read the duration of a flag, of at most so many days. Raises INVALID_REQUEST."""
    found = seconds(text)
    if found > days * _SECONDS["d"] or (found == 0 and not zero):
        least = "" if zero else "more than 0s and "
        raise Error(Code.INVALID_REQUEST, f"{flag} is {least}at most {days}d, not {text[:32]!r}.")
    return found


def number_of_bytes(text: str) -> int:
    """Read a size; units are powers of 1024. Raises INVALID_REQUEST."""
    return int(_number(text, _BYTES, "500M or 20GiB"))


def _number(text: str, units: dict[str, int], example: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text.strip())
    if match is None or match[2] not in units:
        raise Error(Code.INVALID_REQUEST, f"Write {example}, not {text[:32]!r}.")
    return float(match[1]) * units[match[2]]
