"""A cache of saved recipes."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from safelight.wire import NamedRecipe, SavedRecipe


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The recipe of an upload: its name, the canonical JSON of what it does, and the digest of that."""

    name: str
    spec: msgspec.Raw
    digest: str
    classic: bool
    """Whether a classic worker, which can only invert, can do it."""


class Cached(msgspec.Struct, kw_only=True):
    """A saved recipe, and the same as one to choose for an upload once that was asked for."""

    saved: NamedRecipe
    choice: Chosen | None = None


class RecipeCache:
    """The saved recipes that were used last, of all tenants, with at most so many bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._cached: OrderedDict[tuple[str, str], Cached] = OrderedDict()

    def get(self, tenant: str, listed: SavedRecipe) -> Cached | None:
        """Return a recipe, unless it has changed."""
        found = self._cached.get((tenant, listed.name))
        if found is None or found.saved.changed != listed.changed:
            return None
        self._cached.move_to_end((tenant, listed.name))
        return found

    def put(self, saved: NamedRecipe) -> Cached:
        """Add a recipe, or replace it, and drop those that were used longest ago."""
        self._drop((saved.tenant, saved.name))
        added = self._cached[saved.tenant, saved.name] = Cached(saved=saved)
        self._size += _size(added)
        while self._size > self._most and len(self._cached) > 1:
            self._drop(next(iter(self._cached)))
        return added

    def _drop(self, key: tuple[str, str]) -> None:
        if (found := self._cached.pop(key, None)) is not None:
            self._size -= _size(found)


def _size(cached: Cached) -> int:
    return len(bytes(cached.saved.spec))
