"""A blob store in a bucket, which any number of instances use at once.

    blobs/ab/abcd…         a blob
    fresh/ab/abcd…         empty; written when a blob that exists is stored again or named, which makes it fresh
    names/12/1234…         a classic name: the digest of its blob and the name
    marks/…                what an instance is removing now, see `removal`
    incoming/…             large blobs that are being received

Bytes are hashed while they arrive. A blob that fits into one block of memory is written by a single request that
succeeds only if the blob does not exist. A larger one goes to `incoming`, in parts, and is copied within the bucket
once its digest is known.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from safelight import background
from safelight.errors import Code, Error
from safelight.steady import Ages
from safelight.storage.bucket.multiparts import abort_unfinished
from safelight.storage.bucket.objects import Bucket, Content
from safelight.storage.bucket.removal import Removal
from safelight.storage.bucket.sizes import Sizes
from safelight.storage.bucket.spool import Spool
from safelight.storage.files import blocks
from safelight.storage.identity import MARK
from safelight.storage.store import NAME_PREFIX, PutResult
from safelight.storage.verified import Verified
from safelight.wire import Blob, StorageInfo

log = logging.getLogger(__name__)

SINGLE = 4 << 20
"""Bytes of a blob up to which it is written by a single request."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEFT_OVER = 86400.0
_TIDY = 3600.0


class OpenObject:
    """An `OpenBlob` of an object."""

    file = None

    def __init__(self, bucket: Bucket, digest: str, content: Content, verified: Verified) -> None:
        self.blob = Blob(digest=digest, size=content.size)
        self._verified = verified
        self._bucket = bucket
        self._whole: Content | None = content

    def chunks(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream bytes; if it is all of them, they are verified once a day; see the contract.

        The stream may break off if a large blob is removed meanwhile.
        """
        end = self.blob.size if end is None else min(end, self.blob.size)
        chunks = self._chunks(start, end)
        if (start, end) != (0, self.blob.size) or self._verified.lately(self.blob.digest):
            return chunks
        return self._verified.passing(self.blob, chunks, asyncio.to_thread)

    async def _chunks(self, start: int, end: int) -> AsyncIterator[bytes]:
        if start >= end:
            return
        content = self._whole if (start, end) == (0, self.blob.size) else None
        self._whole = None
        content = content or await self._bucket.read(blob_key(self.blob.digest), start, end)
        left = end - start
        if content is not None:
            async for chunk in content.chunks():
                left -= len(chunk)
                yield chunk
        if left:
            raise Error(Code.DAMAGED_BLOB, f"The blob {self.blob.digest} is shorter than it should be.")


class BucketStore:
    """A `BlobStore` in a bucket."""

    def __init__(self, bucket: Bucket, ages: Ages) -> None:
        self.bucket = bucket
        self._ages = ages
        self._removal = Removal(bucket)
        self._sizes = Sizes(bucket)
        self._verified = Verified()
        self._had_id = False
        """Whether the store had an id when that was last looked for."""

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str, ages: Ages | None = None) -> AsyncIterator[BucketStore]:
        """Use a bucket until the context ends; meanwhile, remove leftovers of crashes.

        Raises UNAVAILABLE if the bucket does not answer or refuses access.
        """
        store = cls(Bucket(url), ages or Ages())
        await store.bucket.directories("marks")  # reports a wrong address or credentials at the start
        await store._check_place()
        async with background.running(store._tidy_for_ever, "bucket"), store._sizes.listed():
            yield store

    async def put(
        self, chunks: AsyncIterable[bytes], *, expected: str | None = None, limit: int | None = None
    ) -> PutResult:
        """Store bytes; see the contract."""
        digest, first = hashlib.sha256(), bytearray()
        arriving = (b"".join(block) async for block in blocks(chunks, limit))
        async for block in arriving:
            await asyncio.to_thread(digest.update, block)
            first += block
            if len(first) > SINGLE:
                return await self._put_large(digest, first, arriving, expected)
        blob = Blob(digest=_checked(digest.hexdigest(), expected), size=len(first))
        key = blob_key(blob.digest)
        while True:
            if await self.bucket.create(key, first, public=True) is not None:
                return self._stored(blob, new=True)
            if self._is_damaged(blob, await self.bucket.find(key)):
                await self.bucket.write(key, first, public=True)
                self._verified.note(blob.digest)
            if await self._freshen(blob.digest):
                return self._stored(blob, new=False)

    @asynccontextmanager
    async def open(self, digest: str, *, verify: bool = False) -> AsyncIterator[OpenObject]:
        """Open a blob; see the contract."""
        content = await self.bucket.read(blob_key(digest))
        if content is not None and verify:
            await self._verify(digest, content)
            content = await self.bucket.read(blob_key(digest))
        if content is None:
            await self._check_place()
            raise Error(Code.NOT_FOUND, f"There is no blob {digest}.")
        yield OpenObject(self.bucket, digest, content, self._verified)

    async def name(self, name: str, digest: str) -> None:
        """Name a blob; see the contract."""
        key, content = name_key(name), f"{digest}\n{name}".encode(errors="surrogatepass")
        if await self.bucket.find(blob_key(digest)) is None or not await self._freshen(digest):
            await self._check_place()
            raise Error(Code.NOT_FOUND, f"There is no blob {digest} to name.")
        while True:
            written = await self.bucket.create(key, content)
            if written is None and (known := await self._read_name(key)) is not None:
                blob, _, tag = known
                if blob != digest and await self.bucket.find(blob_key(blob)) is not None:
                    raise Error(Code.CONFLICT, f"The name {name} refers to another blob already.")
                written = await self.bucket.replace(key, content, tag)
            if written is not None and await self._removal.stays(key):
                return

    async def named(self, name: str) -> Blob:
        """Return the blob with a name; see the contract."""
        known = await self._read_name(name_key(name))
        found = None if known is None else await self.bucket.find(blob_key(known[0]))
        if known is None or found is None:
            await self._check_place()
            raise Error(Code.NOT_FOUND, f"Nothing is stored under the name {name}.")
        return Blob(digest=known[0], size=found.size)

    async def aged(self, before: float) -> AsyncIterator[str]:
        """List old names and blobs; see the contract."""
        async for key, found in self.bucket.listing("names"):
            if await self._is_old(key, found.stored, before) and (known := await self._read_name(key)) is not None:
                yield NAME_PREFIX + known[1]
        for directory in await self.bucket.directories("blobs"):
            fresh = {
                key.rpartition("/")[2]
                async for key, found in self.bucket.listing(directory.replace("blobs", "fresh", 1))
                if not await self._is_old(key, found.stored, before)
            }
            async for key, found in self.bucket.listing(directory):
                digest = key.rpartition("/")[2]
                is_blob = _DIGEST.fullmatch(digest) is not None  # others may put objects there
                if is_blob and digest not in fresh and await self._is_old(key, found.stored, before):
                    yield digest

    async def remove(self, items: Sequence[str], *, before: float) -> list[int | None]:
        """Remove items; see the contract."""
        return [await self._remove(item, before) for item in items]

    async def _remove(self, item: str, before: float) -> int | None:
        if item.startswith(NAME_PREFIX):
            return await self._removal.remove(name_key(item.removeprefix(NAME_PREFIX)), before=before)
        freed = await self._removal.remove(blob_key(item), fresh_key(item), before=before)
        if freed is not None:
            self._sizes.add(-1, -freed)
        return freed

    async def info(self) -> StorageInfo:
        """Return how much is stored; see the contract. This sometimes lists the bucket."""
        count, size = await self._sizes.total()
        return StorageInfo(blobs=count, size=size, free=None)

    def free(self) -> int | None:
        """Return None, because a bucket does not tell how many bytes fit."""
        return None

    async def tidy(self) -> int:
        """Remove leftovers of crashes that are a day old; return the number of objects and unfinished uploads."""
        before, removed = self._ages.before("left over", _LEFT_OVER), 0
        if before is None:
            return 0
        for prefix in ("incoming", "marks"):
            async for key, found in self.bucket.listing(prefix):
                if found.stored < before:
                    await self.bucket.delete(key)
                    removed += 1
        return removed + await abort_unfinished(self.bucket.url, before)

    async def _check_place(self) -> None:
        """Raise UNAVAILABLE if the store has lost its id: its bucket was emptied or replaced, or another one answers.

        Then it says nothing about a blob that it does not have: the photo is not lost, and must not be blamed.
        """
        has_id = await self.bucket.find(MARK) is not None
        if self._had_id and not has_id:
            raise Error(Code.UNAVAILABLE, f"{self.bucket.url} has lost the id of its store, so all of it may be gone.")
        self._had_id = has_id

    async def _tidy_for_ever(self) -> None:
        while True:
            try:
                if removed := await self.tidy():
                    log.info("Removed %d objects and unfinished uploads that crashes had left behind", removed)
            except Error as error:
                log.warning("Leftovers of crashes in the bucket could not be removed: %s", error.detail)
            await asyncio.sleep(_TIDY)

    async def _put_large(
        self, digest: hashlib._Hash, first: bytearray, arriving: AsyncIterator[bytes], expected: str | None
    ) -> PutResult:
        temporary, size = f"incoming/{secrets.token_hex(16)}", len(first)
        try:
            async with Spool.uploading(self.bucket, temporary) as spool:
                await spool.write(first)
                async for block in arriving:
                    await asyncio.to_thread(digest.update, block)
                    size += len(block)
                    await spool.write(block)
                blob = Blob(digest=_checked(digest.hexdigest(), expected), size=size)
            new = await self._adopt(temporary, blob)
            return self._stored(blob, new=new)
        finally:
            with suppress(Error):  # `tidy` removes it later
                await asyncio.shield(self.bucket.delete(temporary))

    async def _adopt(self, temporary: str, blob: Blob) -> bool:
        """Turn an object with the right digest into a blob; return whether the blob is new."""
        key, new = blob_key(blob.digest), False
        while True:
            found = await self.bucket.find(key)
            if found is None or self._is_damaged(blob, found):
                await self.bucket.copy(temporary, key)
                self._verified.note(blob.digest)
                new = found is None
                if await self._removal.stays(key):
                    return new
            elif await self._freshen(blob.digest):
                return new

    async def _freshen(self, digest: str) -> bool:
        """Make a blob fresh; return False if it was removed meanwhile, or may have been."""
        await self.bucket.write(fresh_key(digest), b"")
        return await self._removal.stays(blob_key(digest))

    def _is_damaged(self, blob: Blob, found: object) -> bool:
        return self._verified.is_damaged(blob.digest) or getattr(found, "size", blob.size) != blob.size

    def _stored(self, blob: Blob, *, new: bool) -> PutResult:
        if new:
            self._sizes.add(1, blob.size)
        return PutResult(digest=blob.digest, size=blob.size, new=new)

    async def _verify(self, digest: str, content: Content) -> None:
        found = hashlib.sha256()
        async for chunk in content.chunks():
            await asyncio.to_thread(found.update, chunk)
        if found.hexdigest() != digest:
            raise self._verified.damaged(digest)
        self._verified.note(digest)

    async def _read_name(self, key: str) -> tuple[str, str, str] | None:
        """Return the digest, the name and the tag of a name's object."""
        content = await self.bucket.read(key)
        if content is None:
            return None
        digest, _, name = (await content.read()).decode(errors="surrogatepass").partition("\n")
        return digest, name, content.tag

    async def _is_old(self, key: str, listed: float, before: float) -> bool:
        """Return whether an object was stored before a time; times in listings are exact only to a second."""
        if not before - 1 < listed < before:
            return listed < before
        found = await self.bucket.find(key)
        return found is not None and found.stored < before


def _checked(digest: str, expected: str | None) -> str:
    if expected is not None and digest != expected:
        sentence = f"The bytes that arrived have the digest {digest}, not {expected}. Send them again."
        raise Error(Code.DIGEST_MISMATCH, sentence)
    return digest


def blob_key(digest: str) -> str:
    """Return the key of a blob. Raises NOT_FOUND for an invalid digest."""
    if _DIGEST.fullmatch(digest) is None:
        raise Error(Code.NOT_FOUND, "A blob is named by the SHA-256 of its bytes, 64 lower-case hex digits.")
    return f"blobs/{digest[:2]}/{digest}"


def fresh_key(digest: str) -> str:
    """Return the key of the object whose time says when a blob was last stored again."""
    return f"fresh/{digest[:2]}/{digest}"


def name_key(name: str) -> str:
    """Return the key of a name: a hash, so that no name becomes a path."""
    hashed = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"names/{hashed[:2]}/{hashed}"
