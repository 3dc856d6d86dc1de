"""Parse the recipes of leases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache

from safelight.recipe import Recipe, parse

_SMALL = 16 << 10
"""The most bytes of a recipe that is remembered and parsed at once. Larger ones have images, and may have megabytes."""

_remembered: Callable[[bytes], Recipe] = lru_cache(maxsize=256)(parse)


async def parsed(spec: bytes) -> Recipe:
    """Return the recipe of a lease. Raises INVALID_RECIPE."""
    return _remembered(spec) if len(spec) <= _SMALL else await asyncio.to_thread(parse, spec)
