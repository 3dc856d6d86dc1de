"""What storage holds and how much still fits, as commands show it."""

from __future__ import annotations

from safelight.cli.printing import size
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import StorageInfo


async def storage_use(client: Client) -> StorageInfo | None:
    """Return what storage says of itself, None where it does not answer or is none of the caller's business."""
    try:
        return await client.storage()
    except Error as error:
        if error.code in (Code.FORBIDDEN, Code.UNAVAILABLE):
            return None
        raise


def room(storage: StorageInfo | None, before: str = "") -> str:
    """Write what is free on the disk, after `before`; nothing where that is not known."""
    if storage is None or storage.free is None or storage.total is None:
        return ""
    return f"{before}{size(storage.free)} of {size(storage.total)} on the disk are free"
