"""Fetch inputs from storage: small ones into memory, large ones into a scratch file."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

from safelight.client.availability.retrying import retrying
from safelight.client.shared import SharedBlobs
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.files.opening import opened
from safelight.wire import Blob, Lease
from safelight.worker.outage import OutageError, works
from safelight.worker.workdir import Workdir

_CHUNK = 1 << 20
_IN_MEMORY = 16 << 20
"""The largest input to hold in memory, in bytes."""
_HASHED_INLINE = 1 << 18
"""The largest input to hash on the event loop, in bytes, because a thread would take longer to start."""
_RETRY_FOR = 10.0


class Inputs:
    """Fetches the inputs of leases and verifies their digests."""

    def __init__(self, storage: StorageClient, shared: SharedBlobs, workdir: Workdir) -> None:
        self._storage = storage
        self._shared = shared
        self._workdir = workdir

    @asynccontextmanager
    async def opened(self, lease: Lease) -> AsyncIterator[bytes | Path]:
        """Fetch an input into memory, or into a file that exists until the context ends.

        Raises NOT_FOUND and DAMAGED_BLOB, which are permanent; OutageError if storage as a whole does not work; and
        transient errors, after some retries, if only this blob cannot be read.
        """
        path: Path | None = None

        async def fetch() -> bytes | Path:
            nonlocal path
            # The photo of a classic task is stored under the name of the task.
            blob = lease.input or await self._storage.named(lease.task)
            if blob.size <= _IN_MEMORY:
                return await self._read(blob)
            path = self._workdir.path(lease.id)
            if not await self._copied(blob, path):
                await self._copy(blob, path)
            return path

        try:
            yield await self._fetched(fetch)
        finally:
            if path is not None:
                await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _fetched(self, fetch: Callable[[], Awaitable[bytes | Path]]) -> bytes | Path:
        """Fetch, and after a failure find out whether only this blob or storage as a whole is to blame."""
        for last in (False, True):
            try:
                return await retrying(fetch, retry_for=0.0 if last else _RETRY_FOR)  # type: ignore[no-any-return]
            except Error as error:
                explained = _explained(error)
                if not explained.transient:
                    raise explained from error
                if not await works(self._storage):
                    raise OutageError(explained) from error
                if last:
                    raise explained from error
        raise AssertionError

    async def _read(self, blob: Blob) -> bytes:
        if (at := await self._shared.path(blob.digest)) is not None:
            data = _cached(at, blob) if blob.size <= _HASHED_INLINE else None
            if data is None:
                data = await asyncio.to_thread(_verified, at, blob)
            if data is not None:
                return data
        async with self._storage.open(blob.digest) as response:
            data = await response.read()
        if len(data) <= _HASHED_INLINE:
            digest = hashlib.sha256(data).hexdigest()
        else:
            digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        _check(blob, digest)
        return data

    async def _copied(self, blob: Blob, path: Path) -> bool:
        """Copy a blob's file; return False if it is missing or incomplete."""
        if (at := await self._shared.path(blob.digest)) is None:
            return False
        async with opened(lambda: path.open("wb", buffering=0)) as file:
            return await asyncio.to_thread(_copied, at, file, blob)

    async def _copy(self, blob: Blob, path: Path) -> None:
        digest = hashlib.sha256()
        async with self._storage.open(blob.digest) as response, opened(lambda: path.open("wb")) as file:

            def take(chunk: bytearray) -> None:
                digest.update(chunk)
                file.write(chunk)

            async for chunk in _gathered(response.chunks()):
                await asyncio.to_thread(take, chunk)
        _check(blob, digest.hexdigest())


def _cached(path: Path, blob: Blob) -> bytes | None:
    """Read a small file without waiting for the disk; return None if that cannot be done, or it is damaged.

    The kernel usually still has what was just uploaded, and a thread would take longer to start than this takes.
    """
    data = bytearray(blob.size)
    try:
        with path.open("rb", buffering=0) as file:
            if os.preadv(file.fileno(), [data], 0, os.RWF_NOWAIT) != blob.size:
                return None
    except (OSError, AttributeError):
        return None
    return bytes(data) if hashlib.sha256(data).hexdigest() == blob.digest else None


def _verified(path: Path, blob: Blob) -> bytes | None:
    """Read a blob's file, or return None if it is missing or damaged."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read(blob.size + 1)
    except OSError:
        return None
    return data if hashlib.sha256(data or b"").hexdigest() == blob.digest else None


def _copied(path: Path, target: FileIO, blob: Blob) -> bool:
    """Copy a blob's file; return False if it cannot be read or is damaged."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    try:
        source = path.open("rb", buffering=0)
    except OSError:
        return False
    with source:
        while True:
            try:
                rest = buffer[: source.readinto(buffer)]
            except OSError:  # an error of storage's disk; one of `target` would be this worker's own
                return False
            if not rest:
                return digest.hexdigest() == blob.digest
            digest.update(rest)
            while rest:
                rest = rest[target.write(rest) :]


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytearray]:
    """Gather network chunks into larger ones, since writing each takes a thread."""
    block = bytearray()
    async for chunk in chunks:
        block += chunk
        if len(block) >= _CHUNK:
            yield block
            block = bytearray()
    yield block


def _check(blob: Blob, digest: str) -> None:
    if digest != blob.digest:
        raise Error(Code.DAMAGED_BLOB, f"The bytes of {blob.digest} do not have this digest.")


def _explained(error: Error) -> Error:
    match error.code:
        case Code.NOT_FOUND:
            return Error(Code.NOT_FOUND, "The uploaded photo is no longer in storage. Upload it again.")
        case Code.DAMAGED_BLOB | Code.DIGEST_MISMATCH:
            detail = (
                "The uploaded photo was damaged in storage: its bytes no longer match their checksum. Upload it again."
            )
            return Error(Code.DAMAGED_BLOB, detail)
        case _:
            return transient(error)


def transient(error: Error) -> Error:
    """Return an error of storage as a transient one, since the photo is not to blame."""
    return error if error.transient else Error(Code.UNAVAILABLE, f"Storage refused the worker: {error.detail}")
