"""The contract of a key-value store."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from safelight.errors import Code, Error
from safelight.wire import Entry, EntryPage

MAX_NAME = 200
"""Characters of a key or an instance."""
MAX_VALUE = 65536
"""Bytes of a value in UTF-8."""


class KeyValueStore(Protocol):
    """Values under keys. Several live instances may share a key.

    Every change increments the store's revision, and so does the expiry of an entry. A change is durable when its
    call returns. Keys and instances have 1 to 200 printable characters, values up to 64 KiB.
    """

    async def get(self, key: str) -> str:
        """Return the value of a key, each live instance's in turn. Raises NOT_FOUND (`Key not found`)."""
        ...

    async def entries(self, key: str | None = None) -> EntryPage:
        """Return the live entries of one key, or of every key, in order of key and instance."""
        ...

    async def set(self, key: str, value: str, *, instance: str = "", ttl: float | None = None) -> Entry:
        """Set a value, forever or for `ttl` seconds.

        Without an instance, this replaces every entry of the key; with one, it replaces the entry of that instance and
        the entry without an instance. Setting an unchanged value is a renewal: it restarts the time to live, wakes
        nobody and keeps the revision.
        """
        ...

    async def delete(self, key: str, *, instance: str | None = None) -> int:
        """Delete the entries of a key, or one instance; return how many were deleted (0 is not an error)."""
        ...

    async def watch(self, after: int, *, key: str | None = None, wait: float = 30.0) -> EntryPage:
        """Return the entries as soon as the store's revision differs from `after`, or after `wait` seconds.

        Returns at once for a revision that the store never had, because it was set up again.
        """
        ...

    def wake(self) -> None:
        """End every watch now; the service is stopping."""
        ...


def check_entry(key: str, value: str, instance: str, ttl: float | None) -> None:
    """Check the limits of the contract, for every backend. Raises INVALID_REQUEST, TOO_LARGE."""
    if not 1 <= len(key) <= MAX_NAME or not key.isprintable():
        raise Error(Code.INVALID_REQUEST, f"A key is 1 to {MAX_NAME} printable characters.", position="key")
    if len(instance) > MAX_NAME or not instance.isprintable():
        raise Error(Code.INVALID_REQUEST, f"An instance is up to {MAX_NAME} printable characters.", position="instance")
    if len(value) > MAX_VALUE or len(value.encode(errors="replace")) > MAX_VALUE:
        raise Error(Code.TOO_LARGE, f"A value is at most {MAX_VALUE} bytes.", position="value", limit=MAX_VALUE)
    if ttl is not None and not 0 < ttl < math.inf:
        raise Error(Code.INVALID_REQUEST, "A time to live is a number of seconds above 0.", position="ttl")


def check_room(instances: Iterable[str], new: str, most: int) -> None:
    """Check that an entry of the instance `new` may be added to those of `instances`. Raises STORAGE_FULL.

    Entries without an instance, which programs without a key may add, leave services their room.
    """
    if sum(bool(instance or not new) for instance in instances) >= most:
        raise Error(
            Code.STORAGE_FULL,
            f"The key-value store is full, with {most} entries: delete some, or start it with a larger --max-entries.",
        )


def shown(entry: Entry) -> str:
    """Return `key=value` on one line, for the listing and the log."""
    value = entry.value
    return f"{entry.key}={value if value.isprintable() else value.encode('unicode_escape').decode()}"
