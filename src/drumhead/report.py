"""The progress of long work, reported to whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Called with a label, the amount done and the total amount (0: unknown)."""


def silent(_label: str, _done: int, _total: int) -> None:
    """Ignore the progress."""
