"""Show how much storage holds and how much still fits."""

from __future__ import annotations

from contextlib import suppress

from safelight.cli.printing import size
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import StorageInfo


async def storage_use(client: Client) -> StorageInfo | None:
    """Return how much storage holds and how much still fits, if known.

    Return None if storage does not answer, the caller may not know, or the master is too old to know the route: the
    rest of the command's output does not depend on it.
    """
    with suppress(Error):
        return await client.storage()
    return None


def room(storage: StorageInfo | None, before: str = "") -> str:
    """Write the free space of the disk, after `before`, or "" if it is not known."""
    if storage is None or storage.free is None or storage.total is None:
        return ""
    return f"{before}{size(storage.free)} of {size(storage.total)} on the disk are free"
