"""Limit open partial uploads by tenant, so that none takes all places, or more bytes than it may keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from safelight.access.shares import no_room, share
from safelight.storage.partial.refusals import too_many
from safelight.wire import NewPartial

_OWNER = "tenant"
"""The member of an upload's metadata that names its owner; uploads without it share the remaining places."""


class Shares:
    """The open uploads by owner. An owner has at most half of the places that the others leave, but at least one.

    An upload counts with its complete size.
    """

    def __init__(self, most: int) -> None:
        """Allow `most` open uploads."""
        self._most = most
        self._open: dict[str, tuple[str, int]] = {}
        """The owner and the size of each."""
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def __contains__(self, id: str) -> bool:
        return id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def check(self, new: NewPartial) -> None:
        """Raise TOO_MANY_REQUESTS if there is no place, or no room, for another upload."""
        owner, count = new.metadata.get(_OWNER, ""), len(self._open)
        if count >= self._most:
            raise too_many(count)
        theirs = self._counts[owner]
        if owner and theirs >= share(self._most, count, theirs):
            raise too_many(theirs)
        if new.room is not None and self._bytes[owner] + new.size > new.room:
            raise no_room(max(0, new.room - self._bytes[owner]))

    def add(self, id: str, size: int, metadata: Mapping[str, str]) -> None:
        """Start counting an upload. Calling it again changes nothing."""
        if id in self._open:
            return
        owner = metadata.get(_OWNER, "")
        self._open[id] = owner, size
        self._counts[owner] += 1
        self._bytes[owner] += size

    def remove(self, id: str) -> None:
        """Stop counting a closed or deleted upload. Calling it again changes nothing."""
        if id not in self._open:
            return
        owner, size = self._open.pop(id)
        self._counts[owner] -= 1
        self._bytes[owner] -= size
        if not self._counts[owner]:
            del self._counts[owner], self._bytes[owner]

    def ids(self) -> set[str]:
        """Return the uploads that are counted."""
        return set(self._open)
