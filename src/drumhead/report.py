"""Progress reports of long operations."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""A callback that receives a label, the amount done and the total amount (0 if unknown)."""


def silent(_label: str, _done: int, _total: int) -> None:
    """Ignore progress reports."""
