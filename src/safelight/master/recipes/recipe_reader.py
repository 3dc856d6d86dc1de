"""Recipes as requests bring them, read where a long one holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from safelight import recipe
from safelight.errors import Code, Error
from safelight.recipe import Recipe

_AT_ONCE = 64 * 1024
"""A recipe in JSON of so many bytes is read in some milliseconds."""
_MOST_WAITING = 16


class RecipeReader:
    """Reads short recipes at once and long ones, and TOML, one after the other in a thread."""

    def __init__(self) -> None:
        self._one = asyncio.Semaphore(1)
        self._waiting = 0

    async def read(self, document: bytes | str, *, toml: bool = False, name: str | None = None) -> Recipe:
        """Read a recipe, to be called `name`.

        Raises INVALID_RECIPE with place and reason, TOO_MANY_REQUESTS where too many wait to be read.
        """

        def parse() -> Recipe:
            found = recipe.parse(document, "toml" if toml else "json")
            return found if name is None else msgspec.structs.replace(found, name=name)

        if not toml and len(document) <= _AT_ONCE:
            return parse()
        if self._waiting >= _MOST_WAITING:
            sentence = "Many long recipes wait to be read. Try again soon."
            raise Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=2)
        # Whoever leaves meanwhile does not end the thread, and so must not let the next one begin beside it.
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(parse)))

    async def _in_turn(self, parse: Callable[[], Recipe]) -> Recipe:
        self._waiting += 1
        try:
            async with self._one:
                return await asyncio.to_thread(parse)
        finally:
            self._waiting -= 1
