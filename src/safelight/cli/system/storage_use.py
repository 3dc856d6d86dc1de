"""What storage holds and how much still fits, as commands show it, and the command that accepts another store."""

from __future__ import annotations

from contextlib import suppress

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import print_json, say, size
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


async def accept_storage_command(id: str, /, *, where: Where = HERE) -> None:
    """Accept another store of photos, because the old one is gone for good.

    Storage refuses every request while it is not the store that db knows: its disk may not be mounted, or --store may
    name another place. Put that right, if it can be. After this command, tasks whose photos were only in the old store
    fail, and their results are missing.

    Parameters
    ----------
    id:
        The id of the new store, which storage logs when it refuses requests.
    """
    async with master(where) as client:
        accepted = await client.accept_storage(id)
    if where.json:
        print_json(accepted)
    else:
        say("The store is accepted. Storage goes on with it.")


def room(storage: StorageInfo | None, before: str = "") -> str:
    """Write what is free on the disk, after `before`; nothing where that is not known."""
    if storage is None or storage.free is None or storage.total is None:
        return ""
    return f"{before}{size(storage.free)} of {size(storage.total)} on the disk are free"
