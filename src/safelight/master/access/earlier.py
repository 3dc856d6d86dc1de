"""Find out whether an upload repeats an earlier one."""

from __future__ import annotations

from collections.abc import Sequence

from safelight.client.db import DbClient


class Earlier:
    """The tasks that earlier attempts of one upload have made, by the client's idempotency keys.

    They count for the tenant's limits already, so the upload must not be refused because of them. db is asked only if
    the upload would be refused, and once.
    """

    def __init__(self, db: DbClient, tenant: str, keys: Sequence[str]) -> None:
        self._db = db
        self._tenant = tenant
        self._keys = keys
        self._asked = False
        self._bytes: int | None = None

    async def bytes(self) -> int | None:
        """Return the bytes of their photos, or None if there are no such tasks."""
        if self._keys and not self._asked:
            tasks = await self._db.keyed(self._keys, tenant=self._tenant)
            self._bytes = sum(task.input.size for task in tasks if task.input is not None) if tasks else None
            self._asked = True
        return self._bytes
