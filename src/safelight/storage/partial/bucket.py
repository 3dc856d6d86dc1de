"""Partial uploads in a bucket, which any instance can continue.

    partials/<id>/state         the record of an upload: size, metadata, its parts in order, who is changing it
    partials/<id>/<random>      the bytes of a part

A part counts once the state names it. The state is replaced only if it still has the tag that was read, so of two
instances that change an upload at once, one succeeds and the other gets an error; no state names the parts of the other
one. An append holds the upload: other calls are refused as busy until the hold ends or has not been renewed for `HOLD`
seconds. The same holder may start again at any instance, since an instance that died cannot end its hold. The hold is
only a courtesy to clients; the tag keeps the bytes correct.

Every part except the last has at least `_TAIL` bytes: an append to a shorter one rewrites it. A part that no state can
name any more is deleted at once; what is left after an error or a crash, when the upload is closed or deleted.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress

from safelight.errors import Code, Error
from safelight.steady import Ages
from safelight.storage.bucket.objects import Bucket
from safelight.storage.partial.background import Background
from safelight.storage.partial.files import parse_checksum
from safelight.storage.partial.refusals import busy, check_whole, closed, too_many
from safelight.storage.partial.shares import Shares
from safelight.storage.partial.state import Part, State, States, hold_until
from safelight.storage.partial.store import PartialLimits
from safelight.storage.store import BlobStore
from safelight.wire import Blob, NewPartial, Partial

log = logging.getLogger(__name__)

_PART = 4 << 20
_TAIL = 256 << 10
_RENEW = 10.0
_ORPHANED = 3600.0


class PartialBucket:
    """A `PartialStore` in a bucket."""

    def __init__(self, bucket: Bucket, blobs: BlobStore, limits: PartialLimits, ages: Ages) -> None:
        self._bucket = bucket
        self._blobs = blobs
        self._limits = limits
        self._ages = ages
        self._states = States(bucket)
        self._shares = Shares(limits.count)
        """Owners of the uploads that were opened at this instance; no instance knows all."""
        self._opening: set[str] = set()
        """Those of them that do not exist in the bucket yet."""
        self._others: set[str] = set()
        """Open uploads of other instances, as far as the searches for expired uploads have seen them."""
        self._closed: set[str] = set()
        """Uploads whose records stay in the bucket until they expire, but which take no place."""
        self._background = Background()

    @classmethod
    @asynccontextmanager
    async def at(
        cls, bucket: Bucket, blobs: BlobStore, limits: PartialLimits, ages: Ages | None = None
    ) -> AsyncIterator[PartialBucket]:
        """Use a bucket until the context ends; meanwhile, delete expired uploads."""
        store = cls(bucket, blobs, limits, ages or Ages())
        async with store._background.sweeping(store.expire, limits.keep):
            yield store

    async def create(self, new: NewPartial) -> Partial:
        """Open an upload; see the contract."""
        state = State(id=new.id or secrets.token_hex(16), size=new.size, metadata=new.metadata)
        if state.id in self._shares:  # the request is repeated
            return self._partial(await self._states.create(state))
        count = len(self._shares) + len(self._others)
        if count >= self._limits.count:
            raise too_many(count)
        self._shares.check(new)
        self._shares.add(state.id, state.size, state.metadata)
        self._others.discard(state.id)
        self._opening.add(state.id)
        # This continues if the call is cancelled, as the request to the bucket may.
        return await asyncio.shield(self._background.end(self._create(state)))

    async def _create(self, state: State) -> Partial:
        try:
            return self._partial(await self._states.create(state))
        except BaseException:
            self._shares.remove(state.id)
            raise
        finally:
            self._opening.discard(state.id)

    async def get(self, id: str) -> Partial:
        """Return an upload; see the contract."""
        return self._partial(await self._states.read(id))

    async def append(
        self, id: str, offset: int, chunks: AsyncIterable[bytes], *, checksum: str | None = None, holder: str = ""
    ) -> Partial:
        """Append bytes; see the contract."""
        opening = asyncio.ensure_future(self._open(id, offset, checksum, holder))
        try:
            append = await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._background.end(self._give_back(opening))
            raise
        failure: BaseException | None = None
        saving: asyncio.Future[None] | None = None
        try:
            async for chunk in chunks:
                append.gather(chunk)
                if append.is_due:
                    saving = asyncio.ensure_future(append.save())
                    await asyncio.shield(saving)
        except BaseException as error:  # noqa: BLE001 - raised again below, once the bytes are safe
            failure = error
        # This continues if the call is cancelled, since bytes that have arrived count.
        ending = self._background.end(self._end(append, saving, whole=failure is None))
        if failure is None:
            return await asyncio.shield(ending)
        if not isinstance(failure, asyncio.CancelledError):
            await asyncio.wait([ending])
        raise failure

    async def finish(self, id: str) -> Blob:
        """Store a complete upload as a blob; see the contract."""
        state = await self._states.read(id)
        _check_free(state)
        if state.outcome:
            raise closed(state.size)
        check_whole(state.offset, state.size)
        stored = await self._blobs.put(self._bytes(state))
        return Blob(digest=stored.digest, size=stored.size)

    async def close(self, id: str, outcome: str) -> Partial:
        """Record the outcome of an upload; see the contract."""
        return await asyncio.shield(self._background.end(self._close(id, outcome)))

    async def _close(self, id: str, outcome: str) -> Partial:
        while True:
            state = await self._states.read(id)
            if state.outcome:
                return self._partial(state)
            _check_free(state)
            check_whole(state.offset, state.size)
            replaced = await self._states.replace(state.evolve(outcome=outcome, parts=[], holder=""))
            if replaced is not None:
                self._forget(id)
                self._closed.add(id)
                with suppress(Error):  # the next search for expired uploads deletes them
                    await self._delete_parts(id)
                return self._partial(replaced)

    async def delete(self, id: str) -> None:
        """Delete an upload; see the contract."""
        await self._states.read(id)
        await asyncio.shield(self._background.end(self._delete(id)))

    async def _delete(self, id: str) -> None:
        await self._states.delete(id)
        self._forget(id)
        self._closed.discard(id)
        with suppress(Error):  # the next search for expired uploads removes them
            await self._delete_parts(id)

    async def expire(self) -> int:
        """Delete expired uploads, and parts that belong to no upload; see the contract."""
        expired = self._ages.before("partials", self._limits.keep)
        # Those that begin or end to be counted while the list is made may be missing from it.
        counted, closed = (self._shares.ids() - self._opening) | self._others, self._closed.copy()
        uploads = {directory.rpartition("/")[2] for directory in await self._bucket.directories("partials")}
        self._closed -= closed - uploads
        for upload in counted - uploads:
            self._forget(upload)
        removed = 0
        for upload in uploads:
            removed += await self._look_at(upload, expired)
        return removed

    async def _look_at(self, upload: str, expired: float | None) -> bool:
        """Delete an upload if it has expired, and parts that belong to none; return whether it has."""
        listing = self._bucket.listing(f"partials/{upload}")
        changed = {key.rpartition("/")[2]: found.stored async for key, found in listing}
        state, now = changed.pop("state", None), time.time()
        if state is not None and expired is not None and state < expired:
            with suppress(Error):  # another instance was faster
                if await self._states.expire(upload, expired):
                    await self._delete(upload)
                    return True
            return False
        if upload not in self._closed and upload not in self._opening:
            await self._count(upload)
        orphaned = state is None and max(changed.values(), default=now) + _ORPHANED < now
        if orphaned or (state is not None and changed and upload in self._closed):
            await self._delete_parts(upload)
        return False

    async def _count(self, upload: str) -> None:
        """Count an upload only if it is open, as another instance may have opened, closed or deleted it."""
        if not await self._is_open(upload):
            self._forget(upload)
            self._closed.add(upload)
        elif upload not in self._shares and upload not in self._closed:
            self._others.add(upload)

    def _forget(self, id: str) -> None:
        """Stop counting an upload. Calling it again changes nothing."""
        self._shares.remove(id)
        self._others.discard(id)

    async def _is_open(self, id: str) -> bool:
        try:
            return not (await self._states.read(id)).outcome
        except Error as error:
            return error.code is not Code.NOT_FOUND

    async def _open(self, id: str, offset: int, checksum: str | None, holder: str) -> Append:
        wanted = parse_checksum(checksum) if checksum is not None else None
        state = await self._states.read(id)
        if not holder or holder != state.holder:
            _check_free(state)
        if state.outcome:
            raise Error(Code.CONFLICT, "This upload is closed, so nothing can be appended.", offset=state.size)
        if state.offset != offset:
            sentence = f"The upload ends at byte {state.offset}. Continue there, not at {offset}."
            raise Error(Code.CONFLICT, sentence, offset=state.offset)
        tail = state.parts[-1] if state.parts and state.parts[-1].size < _TAIL else None
        data = b"" if tail is None else b"".join([chunk async for chunk in self._part(id, tail)])
        until = hold_until()
        held = await self._states.replace(
            state.evolve(holder=holder or secrets.token_hex(8), until=until, began=offset)
        )
        if held is None:
            raise busy()
        return Append(self._bucket, self._states, held, tail, data, wanted)

    async def _give_back(self, opening: asyncio.Future[Append]) -> Partial:
        """End the hold of a cancelled call, whose request for it may be on its way; others are refused until then."""
        append = await opening
        return self._partial(await append.close(whole=False))

    async def _end(self, append: Append, saving: asyncio.Future[None] | None, *, whole: bool) -> Partial:
        if saving is not None:
            await asyncio.wait([saving])
        return self._partial(await append.close(whole=whole))

    def _partial(self, state: State) -> Partial:
        return Partial(
            id=state.id,
            size=state.size,
            offset=state.size if state.outcome else state.began if state.held else state.offset,
            metadata=state.metadata,
            expires=state.changed + self._limits.keep,
            outcome=state.outcome,
        )

    async def _bytes(self, state: State) -> AsyncIterator[bytes]:
        for part in state.parts:
            async for chunk in self._part(state.id, part):
                yield chunk

    async def _part(self, id: str, part: Part) -> AsyncIterator[bytes]:
        content = await self._bucket.read(part_key(id, part))
        if content is None or content.size != part.size:
            raise busy()
        async for chunk in content.chunks():
            yield chunk

    async def _delete_parts(self, id: str) -> None:
        """Delete all parts of an upload that is closed or deleted, also those that no state has named."""
        keys = [key async for key, _ in self._bucket.listing(f"partials/{id}")]
        await self._bucket.delete(*(key for key in keys if not key.endswith("/state")))


class Append:
    """One append. Bytes are gathered into parts; with a checksum, the parts count only after the comparison."""

    def __init__(
        self,
        bucket: Bucket,
        states: States,
        held: State,
        tail: Part | None,
        data: bytes,
        checksum: tuple[str, str] | None,
    ) -> None:
        """Begin with the bytes of the upload's last part if that is to be rewritten (`tail`, `data`)."""
        self._bucket = bucket
        self._states = states
        self._state = held
        self._digest = checksum[1] if checksum is not None else None
        self._hash = hashlib.new(checksum[0], usedforsecurity=False) if checksum is not None else None
        self._parts = held.parts[:-1] if tail is not None else held.parts
        self._own = {tail} if tail is not None else set()
        """The parts that this append has written or rewrites, and that are not deleted."""
        self._data = bytearray(data)
        self._room = self._room_before = held.size - held.offset
        self._offset = held.offset
        self._renewed = time.monotonic()

    def gather(self, chunk: bytes) -> None:
        """Take a chunk. Raises TOO_LARGE, without keeping it, past the size of the upload."""
        if len(chunk) > self._room:
            sentence = "The upload has more bytes than its announced size."
            raise Error(Code.TOO_LARGE, sentence, limit=self._offset + self._room)
        self._room -= len(chunk)
        if self._hash is not None:
            self._hash.update(chunk)
        self._data += chunk

    @property
    def is_due(self) -> bool:
        """Whether a part is full, or the hold must be renewed."""
        return len(self._data) >= _PART or time.monotonic() - self._renewed > _RENEW

    async def save(self) -> None:
        """Write a full part and renew the hold. Raises CONFLICT if the hold was lost."""
        if len(self._data) >= _PART:
            await self._write()
        # The parts count now, unless they must be compared first, or the last one must still be rewritten.
        counts = self._hash is None and sum(part.size for part in self._parts) >= self._state.offset
        parts = self._parts if counts else self._state.parts
        await self._replace(self._state.evolve(parts=parts, until=hold_until()))
        self._renewed = time.monotonic()

    async def close(self, *, whole: bool) -> State:
        """Make the bytes durable and end the hold. Raises DIGEST_MISMATCH and keeps no bytes in that case."""
        right = self._hash is None or (whole and self._hash.hexdigest() == self._digest)
        if not right or self._room == self._room_before:
            self._parts = self._state.parts
        elif self._data:
            await self._write()
        await self._replace(self._state.evolve(parts=self._parts, holder=""))
        if whole and not right:
            raise Error(Code.DIGEST_MISMATCH, "The bytes do not match their checksum. Send them again.")
        return self._state

    async def _write(self) -> None:
        part = Part(name=secrets.token_hex(8), size=len(self._data))
        await self._bucket.write(part_key(self._state.id, part), self._data)
        self._data = bytearray()
        self._parts = [*self._parts, part]
        self._own.add(part)

    async def _replace(self, state: State) -> None:
        replaced = await self._states.replace(state)
        if replaced is None:
            with suppress(Error):  # the parts are deleted when the upload is closed
                await self._drop((await self._states.read(state.id)).parts)
            raise busy()
        self._state = replaced
        with suppress(Error):  # as above
            await self._drop([*replaced.parts, *self._parts])

    async def _drop(self, kept: list[Part]) -> None:
        """Delete the parts of this append that no state can name any more."""
        dropped = self._own.difference(kept)
        if dropped:
            await self._bucket.delete(*(part_key(self._state.id, part) for part in dropped))
            self._own -= dropped


def part_key(id: str, part: Part) -> str:
    """Return the key of a part."""
    return f"partials/{id}/{part.name}"


def _check_free(state: State) -> None:
    if state.held:
        raise busy()
