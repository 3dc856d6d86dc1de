"""Uploads that come in pieces, at storage, over HTTP: the same methods as `storage.partial.PartialStore`."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from safelight.client.base import Body, ServiceClient
from safelight.wire import Blob, NewPartial, Partial


def _partial(id: str, action: str = "") -> str:
    return f"/partials/{quote(id, safe='')}{action}"


class PartialClient(ServiceClient):
    """Uploads in pieces; an offset that a call returns is durable."""

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload. Not repeated: one that nobody knows of would stay until it expires."""
        return await self._connection.call("POST", "/partials", Partial, json=new, retry=False)

    async def get(self, id: str) -> Partial:
        """Return how far an upload has come. Raises NOT_FOUND."""
        return await self._connection.call("GET", _partial(id), Partial)

    async def append(self, id: str, offset: int, body: Body, *, checksum: str | None = None) -> Partial:
        """Add a piece; `checksum` is `algorithm:hex`. Raises CONFLICT, TOO_LARGE, DIGEST_MISMATCH; see the store."""
        params = {"offset": offset, "checksum": checksum}
        headers = {"Content-Type": "application/octet-stream"}
        async with self._connection.open("PATCH", _partial(id), params=params, body=body, headers=headers) as answer:
            return msgspec.json.decode(await answer.read(), type=Partial)

    async def finish(self, id: str) -> Blob:
        """Store the whole as a blob. Raises CONFLICT before the end. Storage may take its time for many bytes."""
        return await self._connection.call("POST", _partial(id, "/finish"), Blob, wait=300.0)

    async def close(self, id: str, outcome: str) -> Partial:
        """Write down what became of a whole upload; its bytes go, its record stays for a while."""
        return await self._connection.call("POST", _partial(id, "/close"), Partial, json={"outcome": outcome})

    async def delete(self, id: str) -> None:
        """Forget an upload."""
        await self._connection.call("DELETE", _partial(id), bytes)
