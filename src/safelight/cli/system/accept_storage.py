"""The command that accepts another store of photos."""

from __future__ import annotations

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import print_json, say


async def accept_storage_command(id: str, /, *, where: Where = HERE) -> None:
    """Accept another store of photos, because the old one, or the old database, is gone for good.

    Storage refuses every request while its store is not the one that db knows, or the database is not the one that
    knows the store: a disk may not be mounted, or --store may name another place. If you can, correct that instead.
    After this command, tasks whose photos were only in the old store fail, and their results are missing.

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
        say("The store is accepted. Storage continues with it.")
