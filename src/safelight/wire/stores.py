"""Records of the key-value store and of storage."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from safelight.wire.records import Record


class Entry(Record, frozen=True, kw_only=True):
    """A value in the key-value store. Several live instances may share a key. `expires` is None if it never does."""

    key: str
    value: str
    instance: str = ""
    revision: int = 0
    expires: float | None = None


class EntryPage(Record, frozen=True, kw_only=True):
    """Entries at one revision of the store."""

    entries: list[Entry]
    revision: int


class Collected(Record, frozen=True, kw_only=True):
    """The result of a garbage collection of storage: items examined and removed, and bytes freed."""

    examined: int = 0
    removed: int = 0
    freed: int = 0


class ClockConfirmed(Record, frozen=True, kw_only=True):
    """When a person last confirmed the clocks: Unix seconds, 0 for never."""

    at: float = 0.0


class KnownStore(Record, frozen=True, kw_only=True):
    """A store of blobs, identified by the id that is stored beside the blobs; "" is none."""

    id: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?(?!\n)$", extra={"words": "32 of 0-9 and a-f"})] = ""


class StoreClaim(Record, frozen=True, kw_only=True):
    """A store of blobs, and the database that knows it, by their ids; "" is none.

    Storage says which it has found and with which database it has worked, db which it knows and which database it is.
    """

    id: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?(?!\n)$", extra={"words": "32 of 0-9 and a-f"})] = ""
    db: Annotated[str, Meta(max_length=64)] = ""


class NewPartial(Record, frozen=True, kw_only=True):
    """A partial upload to open: its complete size, and metadata that is stored with it.

    A caller that chooses the `id` (32 random hexadecimal digits) can retry without opening a second upload. `room` is
    the limit in bytes for all open uploads of the same tenant, if it has one.
    """

    id: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?(?!\n)$", extra={"words": "32 of 0-9 and a-f"})] = ""
    size: Annotated[int, Meta(ge=0)]
    metadata: Annotated[dict[str, str], Meta(max_length=32)] = {}
    room: Annotated[int, Meta(ge=0)] | None = None


class Partial(Record, frozen=True, kw_only=True):
    """A partial upload, of which `offset` bytes are durable.

    Every append extends `expires`. `outcome` is empty until the upload is closed; then it is the value that the caller
    of `close` recorded (for the master, the task's id).
    """

    id: str
    size: int
    offset: int
    metadata: dict[str, str] = {}
    expires: float = 0.0
    outcome: str = ""


class SharedDirectory(Record, frozen=True, kw_only=True):
    """Storage's directory, for programs on the same file system; `token` names a file that exists only there."""

    path: str
    token: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}(?!\n)$")]


class NewFile(Record, frozen=True, kw_only=True):
    """A file that a program has put into the shared directory, to be stored as a blob."""

    name: str
    token: str


class NewBlobLink(Record, frozen=True, kw_only=True):
    """A requested link: how the bucket should describe the bytes, and for how many seconds the link is valid."""

    media_type: Annotated[str, Meta(max_length=200)]
    disposition: Annotated[str, Meta(max_length=2000)]
    seconds: Annotated[int, Meta(ge=1, le=3600)]


class BlobLink(Record, frozen=True, kw_only=True):
    """A link to a blob for clients, or "" if they cannot reach the bucket."""

    url: str


class StorageInfo(Record, frozen=True, kw_only=True):
    """How much storage holds, how much more fits, and the size of its disk; a bucket lacks the last two."""

    blobs: int
    size: int
    free: int | None = None
    total: int | None = None
