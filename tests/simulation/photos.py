"""Simulated photos, which contain their own kind as text."""

from __future__ import annotations

import hashlib

_PNG = b"\x89PNG\r\n\x1a\n"

GOOD, KILLER, BROKEN = "good", "killer", "broken"
"""The kinds: a photo with a result, one that kills every decoder, and data that is not a photo."""


def photo(number: int, kind: str = GOOD, size: int = 300) -> bytes:
    """Return the number-th photo of a kind."""
    return _PNG + f"{kind} {number} ".encode().ljust(size, b".")


def kind_of(data: bytes) -> str:
    """Return the kind of a photo from its bytes."""
    return data.removeprefix(_PNG).partition(b" ")[0].decode()


def result_of(data: bytes) -> bytes:
    """Return the right result of a photo."""
    return _PNG + b"made of " + hashlib.sha256(data).hexdigest().encode()
