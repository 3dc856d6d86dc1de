"""Whose partial uploads are open: no tenant takes the places of all the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from safelight.access.connections.shares import share
from safelight.storage.partial.refusals import too_many

_OWNER = "tenant"
"""The member of an upload's metadata that says whose it is; uploads without it share the places that are left."""


class Shares:
    """The open uploads by owner. An owner has at most half of the places that the others leave, but always one."""

    def __init__(self, most: int) -> None:
        """Let `most` uploads be open."""
        self._most = most
        self._owners: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def __contains__(self, id: str) -> bool:
        return id in self._owners

    def check(self, metadata: Mapping[str, str]) -> None:
        """Raise TOO_MANY_REQUESTS where one more upload with this metadata has no place."""
        owner, count = metadata.get(_OWNER, ""), len(self._owners)
        if count >= self._most:
            raise too_many(count)
        theirs = self._counts[owner]
        if owner and theirs >= share(self._most, count, theirs):
            raise too_many(theirs)

    def add(self, id: str, metadata: Mapping[str, str]) -> None:
        """Count an upload in, once."""
        if id in self._owners:
            return
        owner = metadata.get(_OWNER, "")
        self._owners[id] = owner
        self._counts[owner] += 1

    def remove(self, id: str) -> None:
        """Count an upload out that was closed or deleted; it may have been before."""
        owner = self._owners.pop(id, None)
        if owner is not None:
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]
