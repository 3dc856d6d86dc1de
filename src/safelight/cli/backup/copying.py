"""Copy the blobs that tasks refer to from one storage into another, several at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

from safelight.client.availability.retrying import retrying
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.storage.store import BlobStore
from safelight.wire import Blob, Reference

T = TypeVar("T")

_DIGEST = re.compile(r"[0-9a-f]{64}")
AT_ONCE = 8
"""Blobs that are copied at a time."""
_PATIENCE = 60.0
"""Seconds for which a copy, which may take hours, waits for a service that starts again or stalls."""
_LOST = frozenset({Code.NOT_FOUND, Code.DAMAGED_BLOB, Code.DIGEST_MISMATCH})
"""What is raised for a blob that is gone or has changed. A store that verified a blob lately sends what it has."""

Open = Callable[[str], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Opens the bytes of a blob by its digest. Raises NOT_FOUND, DAMAGED_BLOB."""


class Copying:
    """Copies blobs and names into `target`, and counts them. Existing ones are not copied again.

    The digest of every copied blob is checked; with `verify`, so are those of existing ones. A lost or damaged blob is
    added to `missing`, and does not keep the others from being copied.
    """

    def __init__(
        self, source: Open, named: Callable[[str], Awaitable[Blob]], target: BlobStore, *, verify: bool = False
    ) -> None:
        self._source = source
        self._named = named
        self._target = target
        self._verify = verify
        self._seen: set[bytes] = set()
        self.blobs = 0
        self.copied = 0
        self.size = 0
        self.names = 0
        self.missing: set[str] = set()

    async def copy(self, page: Reference) -> None:
        """Copy the blobs that a page of tasks refers to.

        Raises STORAGE_FULL, UNAVAILABLE, and DAMAGED_BLOB for an invalid digest.
        """
        await _each(page.digests, self._copy_blob)
        await _each(page.names, self._copy_name)

    async def _copy_blob(self, digest: str) -> None:
        if _DIGEST.fullmatch(digest) is None:
            raise Error(Code.DAMAGED_BLOB, "A task refers to a photo or result by an invalid digest.")
        if bytes.fromhex(digest) in self._seen:
            return
        self._seen.add(bytes.fromhex(digest))
        try:
            size = await self._there(digest)
            if size is None:
                async with self._source(digest) as chunks:
                    size = (await self._target.put(chunks, expected=digest)).size
                self.copied += 1
        except Error as error:
            self._seen.discard(bytes.fromhex(digest))
            if error.code not in _LOST:
                raise
            self.missing.add(digest)
            return
        self.missing.discard(digest)
        self.blobs += 1
        self.size += size

    async def _there(self, digest: str) -> int | None:
        try:
            async with self._target.open(digest, verify=self._verify) as blob:
                return blob.blob.size
        except Error as error:
            if error.code in _LOST:
                return None
            raise

    async def _copy_name(self, name: str) -> None:
        """Copy the blob that the classic protocol stored under a name. If there is none, it was not uploaded yet."""
        try:
            blob = await self._named(name)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return
        await self._copy_blob(blob.digest)
        if blob.digest not in self.missing:
            if not await self._is_named(name, blob.digest):
                await self._target.name(name, blob.digest)
            self.names += 1

    async def _is_named(self, name: str, digest: str) -> bool:
        try:
            return (await self._target.named(name)).digest == digest
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return False


def reading(storage: StorageClient) -> Open:
    """Read blobs of a running storage."""

    @asynccontextmanager
    async def opened(digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with storage.open(digest) as response:
            yield response.chunks()

    return opened


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat an attempt while a service or a store does not answer. Nothing else, such as a full disk, is awaited."""
    return await retrying(attempt, retry_for=_PATIENCE, codes=(Code.UNAVAILABLE,))  # type: ignore[no-any-return]


async def _each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work for each item, several at a time; the first failure that lasts ends all of it and is raised."""
    left = iter(items)

    async def some() -> None:
        for item in left:
            await patiently(partial(work, item))

    failures: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())
    except* Error as raised:
        failures += raised.exceptions
    if failures:
        raise failures[0]
