"""Make-believe photos: what they are is written in them."""

from __future__ import annotations

import hashlib

_PNG = b"\x89PNG\r\n\x1a\n"

GOOD, KILLER, BROKEN = "good", "killer", "broken"
"""A photo that becomes a result; one that kills each decoder; one that is not a photo."""


def photo(number: int, kind: str = GOOD, size: int = 300) -> bytes:
    """Return the number-th photo of a kind."""
    return _PNG + f"{kind} {number} ".encode().ljust(size, b".")


def kind_of(data: bytes) -> str:
    """Return the kind of a photo, once it was read."""
    return data.removeprefix(_PNG).partition(b" ")[0].decode()


def result_of(data: bytes) -> bytes:
    """Return what the right result of a photo is."""
    return _PNG + b"made of " + hashlib.sha256(data).hexdigest().encode()
