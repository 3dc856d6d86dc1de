"""What storage holds and how much still fits, as commands show it."""

from __future__ import annotations

from contextlib import suppress

from safelight.cli.printing import size
from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import StorageInfo


async def storage_use(client: Client) -> StorageInfo | None:
    """Return what storage says of itself.

    It is None where storage does not answer, where it is none of the caller's business, and where the master does not
    know the question: what else the command shows does not depend on it.
    """
    with suppress(Error):
        return await client.storage()
    return None


def room(storage: StorageInfo | None, before: str = "") -> str:
    """Write what is free on the disk, after `before`; nothing where that is not known."""
    if storage is None or storage.free is None or storage.total is None:
        return ""
    return f"{before}{size(storage.free)} of {size(storage.total)} on the disk are free"
