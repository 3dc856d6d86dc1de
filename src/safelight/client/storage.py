"""Storage over HTTP, with the methods of `storage.direct.DirectStorage`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from io import FileIO
from typing import Protocol
from urllib.parse import quote

import aiohttp
import msgspec

from safelight.client.availability.retrying import retrying
from safelight.client.base import Body, Connection, ServiceClient
from safelight.client.requests.uploads import EXTRA_WAIT
from safelight.wire import Blob, BlobLink, Collected, NewBlobLink, NewFile, SharedDirectory, StorageInfo, StoredBlob

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/.*")
_RESUMES = 3
"""How often in a row to ask for the rest of a blob when none of it arrives."""


class BlobAnswer(Protocol):
    """Storage's answer to a request for a blob: the HTTP status, headers, and the requested bytes."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers: ETag, Content-Length and, for a part, Content-Range."""
        ...

    @property
    def file(self) -> tuple[FileIO, range] | None:
        """The open file and the range in it that holds the bytes, if storage runs in this process."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Stream the bytes, once."""
        ...

    async def read(self) -> bytes:
        """Return the bytes as a whole."""
        ...


class _Response:
    """A `BlobAnswer` over HTTP. If an instance dies while it sends, another one sends the rest, or its successor."""

    file = None

    def __init__(self, connection: Connection, digest: str, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._connection = connection
        self._digest = digest
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        start, end = _bounds(self.headers)
        response, failures = self._response, 0
        async with AsyncExitStack() as stack:
            while True:
                try:
                    async for chunk in response.content.iter_any():
                        start += len(chunk)
                        failures = 0
                        yield chunk
                except (aiohttp.ClientError, TimeoutError):
                    failures += 1
                    if end is None or failures > _RESUMES or self.status not in (200, 206):
                        raise
                else:
                    return
                response = await retrying(partial(self._rest, stack, start, end), retry_for=self._connection.retry_for)

    async def _rest(self, stack: AsyncExitStack, start: int, end: int) -> aiohttp.ClientResponse:
        """Open the bytes from `start` to `end`."""
        headers = {"Range": f"bytes={start}-{end}", "If-Match": f'"{self._digest}"'}
        opening = self._connection.open("GET", f"/blobs/{self._digest}", headers=headers)
        return await stack.enter_async_context(opening)

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


def _bounds(headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Return the first and the last byte of an answer; the last one is None if unknown."""
    if found := _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "")):
        return int(found[1]), int(found[2])
    length = headers.get("Content-Length", "")
    return 0, int(length) - 1 if length.isdigit() and int(length) else None


class StorageClient(ServiceClient):
    """Immutable blobs, named by the SHA-256 of their bytes."""

    async def put(self, body: Body, *, expected: str | None = None, apart: set[str] | None = None) -> StoredBlob:
        """Store bytes durably as a blob. Raises DIGEST_MISMATCH, STORAGE_FULL.

        With `apart`, use an instance that is not in this set, and add it. Raises UNAVAILABLE if there is no other.

        This is not retried, since a stream can be read only once; with `bytes`, the caller can retry.
        """
        path = "/blobs" if expected is None else f"/blobs/{expected}"
        headers = {"Content-Type": "application/octet-stream"}
        async with self._connection.open(
            "POST" if expected is None else "PUT", path, body=body, headers=headers, wait=EXTRA_WAIT, apart=apart
        ) as answer:
            return msgspec.json.decode(await answer.read(), type=StoredBlob)

    @asynccontextmanager
    async def open(
        self, digest: str, *, verify: bool = False, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[BlobAnswer]:
        """Open a blob; `headers` may have Range and conditions (RFC 9110), and HEAD asks for no bytes.

        Raises NOT_FOUND, DAMAGED_BLOB, PRECONDITION_FAILED, RANGE_NOT_SATISFIABLE.
        """
        params = {"verify": "true" if verify else None}
        async with self._connection.open(method, f"/blobs/{digest}", params=params, headers=headers) as response:
            yield _Response(self._connection, digest, response)

    async def read(self, digest: str) -> bytes:
        """Return all bytes of a blob. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/blobs/{digest}", bytes)

    async def link(self, digest: str, new: NewBlobLink) -> BlobLink:
        """Return a temporary link to a blob for clients, or "" if clients cannot reach the bucket."""
        return await self._connection.call("POST", f"/blobs/{digest}/link", BlobLink, json=new)

    async def named(self, name: str) -> Blob:
        """Return the blob to which a classic name refers. Raises NOT_FOUND."""
        return await self._connection.call("GET", f"/names/{quote(name, safe='')}", Blob)

    async def name(self, name: str, digest: str) -> None:
        """Give a blob a classic name. Raises NOT_FOUND; CONFLICT if the name refers to another blob."""
        await self._connection.call("PUT", f"/names/{quote(name, safe='')}", bytes, json={"digest": digest})

    async def shared(self) -> SharedDirectory | None:
        """Return the directory that storage shares with programs on its file system; None if it keeps none."""
        return await self._connection.call("GET", "/shared", SharedDirectory | None, retry=False)  # type: ignore[arg-type]

    async def adopt(self, name: str, token: str) -> StoredBlob:
        """Store a file of the shared directory as a blob, durably. Raises NOT_FOUND, STORAGE_FULL."""
        file = NewFile(name=name, token=token)
        return await self._connection.call("POST", "/shared", StoredBlob, json=file, wait=EXTRA_WAIT, retry=False)

    async def collect(self) -> Collected:
        """Collect garbage now. Raises CONFLICT, UNAVAILABLE."""
        return await self._connection.call("POST", "/collect", Collected, wait=EXTRA_WAIT, retry=False)

    async def info(self) -> StorageInfo:
        """Return how much is stored and how much still fits."""
        return await self._connection.call("GET", "/info", StorageInfo)
