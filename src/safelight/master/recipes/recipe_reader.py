"""Parse the recipes in requests, without letting a long one delay other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from safelight import recipe
from safelight.errors import Code, Error
from safelight.recipe import Recipe

_AT_ONCE = 64 * 1024
"""A JSON recipe of so many bytes is parsed in a few milliseconds."""
_MOST_WAITING = 16


class RecipeReader:
    """Parses short recipes at once, and long ones and TOML one after the other in a thread."""

    def __init__(self) -> None:
        self._one = asyncio.Semaphore(1)
        self._waiting = 0

    async def read(self, document: bytes | str, *, toml: bool = False, name: str | None = None) -> Recipe:
        """Parse a recipe, and name it `name`.

        Raises INVALID_RECIPE with place and reason, TOO_MANY_REQUESTS if too many wait to be parsed.
        """

        def parse() -> Recipe:
            found = recipe.parse(document, "toml" if toml else "json")
            return found if name is None else msgspec.structs.replace(found, name=name)

        if not toml and len(document) <= _AT_ONCE:
            return parse()
        if self._waiting >= _MOST_WAITING:
            sentence = "Many long recipes wait to be read. Try again soon."
            raise Error(Code.TOO_MANY_REQUESTS, sentence, retry_after=2)
        # A caller that leaves does not end the thread, so it must not release the lock before the thread ends.
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(parse)))

    async def _in_turn(self, parse: Callable[[], Recipe]) -> Recipe:
        self._waiting += 1
        try:
            async with self._one:
                return await asyncio.to_thread(parse)
        finally:
            self._waiting -= 1
