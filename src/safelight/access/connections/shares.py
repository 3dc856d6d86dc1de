"""How many places one of several owners may have, so that another always finds one."""

from __future__ import annotations


def share(most: int, taken: int, theirs: int) -> int:
    """Return how many of `most` places an owner may have: half of those that the others leave, but always one.

    `taken` places are held by all together, `theirs` of them by this owner.
    """
    return max(1, (most - taken + theirs) // 2)
