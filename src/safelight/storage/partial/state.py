"""The states of partial uploads in a bucket: read with their tag, and replaced only if the tag is unchanged."""

from __future__ import annotations

import re
import secrets
import time

import msgspec

from safelight.storage.bucket.objects import Bucket
from safelight.storage.partial.files import unknown
from safelight.wire import Record, encode

HOLD = 45.0
"""Seconds after which a hold ends unless it is renewed."""
_MOST_HOLDS = 10_000
"""Holds to remember; a forgotten one lasts a little longer."""

_ID = re.compile(r"[0-9a-f]{32}")


class Part(Record, frozen=True, kw_only=True):
    """A part of an upload: the name of its object, and its bytes."""

    name: str
    size: int


class State(Record, frozen=True, kw_only=True):
    """The record of an upload.

    While an append holds the upload, `holder` is its token, `until` the time (Unix seconds) at which the hold ends
    unless it is renewed, and `began` the offset at which it began. `nonce` makes every state unique, since tags are
    often a hash of the content. A `deleted` upload counts as non-existent. `tag` and `changed` come from the bucket.
    `seen` is the time on the monotonic clock of this machine at which this instance has first found the state.
    """

    id: str
    size: int
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    parts: list[Part] = msgspec.field(default_factory=list)
    outcome: str = ""
    holder: str = ""
    until: float = 0.0
    began: int = 0
    nonce: str = ""
    deleted: bool = False
    tag: str = ""
    changed: float = 0.0
    seen: float = 0.0

    @property
    def offset(self) -> int:
        """The number of bytes that count."""
        return sum(part.size for part in self.parts)

    @property
    def held(self) -> bool:
        """Whether an append is changing the upload now.

        The clock of its machine may be ahead, so a hold also ends if it was not renewed while this instance looked.
        """
        return bool(self.holder) and time.time() < self.until and time.monotonic() - self.seen < HOLD


class States:
    """Reads and writes states."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._holds: dict[str, tuple[str, float]] = {}
        """The nonce of each state with a hold, and when it was first found."""

    async def create(self, state: State) -> State:
        """Write the first state of an upload."""
        new, begun = _new(state), time.time()  # the bucket keeps the time before the write
        tag = await self._bucket.create(_key(new.id), encode(new))
        if tag is None:  # a retry of ours found the object of the first attempt
            return await self.read(new.id)
        return self._as_found(new, tag, begun)

    async def read(self, id: str) -> State:
        """Read a state. Raises NOT_FOUND."""
        state = await self._find(id)
        if state.deleted:
            raise unknown(id)
        return state

    async def _find(self, id: str) -> State:
        content = await self._bucket.read(_key(id))
        if content is None:
            raise unknown(id)
        state = msgspec.json.decode(await content.read(), type=State)
        return self._as_found(state, content.tag, content.stored)

    async def replace(self, state: State) -> State | None:
        """Replace the state with this tag; return None if another state was written since.

        The answer may be lost after the state was written, so after a refusal the existing state is compared.
        Raises NOT_FOUND.
        """
        new, begun = _new(state), time.time()
        tag = await self._bucket.replace(_key(state.id), encode(new), state.tag)
        if tag is not None:
            return self._as_found(new, tag, begun)
        there = await self._find(state.id)
        return there if there.nonce == new.nonce else None

    async def expire(self, id: str, before: float) -> bool:
        """Mark an upload as deleted if it was last changed before a time (Unix seconds); return whether it was.

        A call that continues it at the same moment either comes first, so that the upload stays, or gets NOT_FOUND.
        """
        state = await self._find(id)
        if state.deleted:
            return True
        return state.changed < before and await self.replace(state.evolve(deleted=True)) is not None

    async def delete(self, id: str) -> None:
        """Delete a state; from then on, the upload does not exist."""
        await self._bucket.delete(_key(id))
        self._holds.pop(id, None)

    def _as_found(self, state: State, tag: str, changed: float) -> State:
        nonce, seen = self._holds.pop(state.id, ("", 0.0))
        if nonce != state.nonce:
            seen = time.monotonic()
        if state.holder:
            self._holds[state.id] = state.nonce, seen
            if len(self._holds) > _MOST_HOLDS:
                del self._holds[next(iter(self._holds))]
        return msgspec.structs.replace(state, tag=tag, changed=changed, seen=seen)


def hold_until() -> float:
    """Return the time (Unix seconds) at which a hold that begins now ends."""
    return time.time() + HOLD


def _new(state: State) -> State:
    return msgspec.structs.replace(state, nonce=secrets.token_hex(8), tag="", changed=0.0, seen=0.0)


def _key(id: str) -> str:
    if _ID.fullmatch(id) is None:
        raise unknown(id)
    return f"partials/{id}/state"
