"""Load a library of C that may not be installed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any

Calls = Mapping[str, tuple[Any, ...]]
"""Functions of a library, each with the type of its answer, then those of its arguments."""


def load(names: Iterable[str], calls: Calls) -> ctypes.CDLL | None:
    """Return the first library of these names that has all functions, or None."""
    for name in names:
        try:
            library = ctypes.CDLL(name)
            for call, (answer, *takes) in calls.items():
                function = getattr(library, call)
                function.restype, function.argtypes = answer, takes
        except (OSError, AttributeError):
            continue
        return library
    return None
