"""storage over HTTP: the same methods as `storage.store.BlobStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
import msgspec

from safelight.client.base import Body, ServiceClient
from safelight.client.uploads import ON_THE_WAY
from safelight.wire import Blob, Collected, StorageInfo


class StorageClient(ServiceClient):
    """Immutable blobs, named by the SHA-256 of their bytes."""

    async def put(self, body: Body, *, expected: str | None = None) -> Blob:
        """Store bytes and return their name; durable when this returns. Raises DIGEST_MISMATCH, STORAGE_FULL.

        A stream can be read only once, so this does not retry; with `bytes` the caller may.
        """
        path = "/blobs" if expected is None else f"/blobs/{expected}"
        headers = {"Content-Type": "application/octet-stream"}
        async with self._connection.open(
            "POST" if expected is None else "PUT", path, body=body, headers=headers, wait=ON_THE_WAY
        ) as answer:
            return msgspec.json.decode(await answer.read(), type=Blob)

    @asynccontextmanager
    async def open(
        self, digest: str, *, verify: bool = False, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a blob's stream; `headers` may carry Range and the like. Raises NOT_FOUND, DAMAGED_BLOB."""
        params = {"verify": "true" if verify else None}
        async with self._connection.open(method, f"/blobs/{digest}", params=params, headers=headers) as response:
            yield response

    async def read(self, digest: str) -> bytes:
        """Return a blob's bytes, all in memory. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/blobs/{digest}", bytes)

    async def named(self, name: str) -> Blob:
        """Return the blob that the classic protocol stored under a name. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/names/{quote(name, safe='')}", Blob)

    async def name(self, name: str, digest: str) -> None:
        """Give a stored blob a classic name. Raises NOT_FOUND; CONFLICT where the name means other bytes."""
        await self._connection.call("PUT", f"/names/{quote(name, safe='')}", bytes, json={"digest": digest})

    async def collect(self) -> Collected:
        """Remove blobs that nobody points at and that are older than the grace period."""
        return await self._connection.call("POST", "/collect", Collected, retry=False)

    async def info(self) -> StorageInfo:
        """Return what storage holds."""
        return await self._connection.call("GET", "/info", StorageInfo)
