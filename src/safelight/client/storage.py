"""Storage over HTTP, with the methods of `storage.direct.DirectStorage`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import FileIO
from typing import Protocol
from urllib.parse import quote

import aiohttp
import msgspec

from safelight.client.base import Body, ServiceClient
from safelight.client.uploads import EXTRA_WAIT
from safelight.wire import Blob, Collected, NewFile, SharedDirectory, StorageInfo


class BlobAnswer(Protocol):
    """What storage answers to a request for a blob: a status of HTTP, headers, and the bytes asked for."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers: ETag, Content-Length and, for a part, Content-Range."""
        ...

    @property
    def file(self) -> tuple[FileIO, range] | None:
        """The open file and the range of it that holds the bytes, where storage is in this process."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Stream the bytes, once."""
        ...

    async def read(self) -> bytes:
        """Return the bytes as a whole."""
        ...


class _Response:
    """A `BlobAnswer` over HTTP."""

    file = None

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    def chunks(self) -> AsyncIterator[bytes]:
        return self._response.content.iter_any()

    async def read(self) -> bytes:
        return await self._response.read()


class StorageClient(ServiceClient):
    """Immutable blobs, named by the SHA-256 of their bytes."""

    async def put(self, body: Body, *, expected: str | None = None) -> Blob:
        """Store bytes durably as a blob. Raises DIGEST_MISMATCH, STORAGE_FULL.

        It is not retried, since a stream can be read only once; with `bytes`, the caller can do so.
        """
        path = "/blobs" if expected is None else f"/blobs/{expected}"
        headers = {"Content-Type": "application/octet-stream"}
        async with self._connection.open(
            "POST" if expected is None else "PUT", path, body=body, headers=headers, wait=EXTRA_WAIT
        ) as answer:
            return msgspec.json.decode(await answer.read(), type=Blob)

    @asynccontextmanager
    async def open(
        self, digest: str, *, verify: bool = False, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[BlobAnswer]:
        """Open a blob; `headers` may have Range and conditions (RFC 9110), and HEAD asks for no bytes.

        Raises NOT_FOUND, DAMAGED_BLOB, PRECONDITION_FAILED, RANGE_NOT_SATISFIABLE.
        """
        params = {"verify": "true" if verify else None}
        async with self._connection.open(method, f"/blobs/{digest}", params=params, headers=headers) as response:
            yield _Response(response)

    async def read(self, digest: str) -> bytes:
        """Return all bytes of a blob. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/blobs/{digest}", bytes)

    async def named(self, name: str) -> Blob:
        """Return the blob to which a classic name refers. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/names/{quote(name, safe='')}", Blob)

    async def name(self, name: str, digest: str) -> None:
        """Give a blob a classic name. Raises NOT_FOUND; CONFLICT where the name refers to another blob."""
        await self._connection.call("PUT", f"/names/{quote(name, safe='')}", bytes, json={"digest": digest})

    async def shared(self) -> SharedDirectory | None:
        """Return the directory that storage shares with workers of its file system; None if it keeps none."""
        return await self._connection.call("GET", "/shared", SharedDirectory | None, retry=False)  # type: ignore[arg-type]

    async def adopt(self, name: str, token: str) -> Blob:
        """Store a file of the shared directory as a blob, durably. Raises NOT_FOUND, STORAGE_FULL."""
        file = NewFile(name=name, token=token)
        return await self._connection.call("POST", "/shared", Blob, json=file, wait=EXTRA_WAIT, retry=False)

    async def collect(self) -> Collected:
        """Collect garbage now. Raises CONFLICT, UNAVAILABLE."""
        return await self._connection.call("POST", "/collect", Collected, retry=False)

    async def info(self) -> StorageInfo:
        """Return how much is stored and how much still fits."""
        return await self._connection.call("GET", "/info", StorageInfo)
