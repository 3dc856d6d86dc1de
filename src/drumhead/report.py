"""How long work says how far it is, whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]
"""Called with what is done (a label), how much of it is done, and how much there is (0: not known)."""


def silent(_label: str, _done: int, _total: int) -> None:
    """The report that tells nobody."""
