"""Partial uploads at storage over HTTP, with the methods of `storage.partial.store.PartialStore`."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from safelight.client.base import Body, ServiceClient
from safelight.client.requests.repeating import deleted
from safelight.wire import Blob, NewPartial, Partial


def _partial(id: str, action: str = "") -> str:
    return f"/partials/{quote(id, safe='')}{action}"


class PartialClient(ServiceClient):
    """Partial uploads; see the store."""

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload. It is retried only if it has an id, since the same id opens the same upload."""
        return await self._connection.call("POST", "/partials", Partial, json=new, retry=bool(new.id))

    async def get(self, id: str) -> Partial:
        """Return an upload and its offset. Raises NOT_FOUND."""
        return await self._connection.call("GET", _partial(id), Partial)

    async def append(
        self, id: str, offset: int, body: Body, *, checksum: str | None = None, holder: str = ""
    ) -> Partial:
        """Append bytes; `checksum` is `algorithm:hex`. Raises CONFLICT, TOO_LARGE, DIGEST_MISMATCH; see the store."""
        params = {"offset": offset, "checksum": checksum, "holder": holder or None}
        headers = {"Content-Type": "application/octet-stream"}
        async with self._connection.open("PATCH", _partial(id), params=params, body=body, headers=headers) as answer:
            return msgspec.json.decode(await answer.read(), type=Partial)

    async def finish(self, id: str) -> Blob:
        """Store a complete upload as a blob; a large one takes a while. Raises CONFLICT while bytes are missing."""
        return await self._connection.call("POST", _partial(id, "/finish"), Blob, wait=300.0)

    async def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome of a complete upload; its bytes are deleted, its record stays for a while."""
        return await self._connection.call("POST", _partial(id, "/close"), Partial, json={"outcome": outcome})

    async def delete(self, id: str) -> None:
        """Delete an upload."""
        await deleted(self._connection, _partial(id))
