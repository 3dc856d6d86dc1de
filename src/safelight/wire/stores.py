"""What the key-value store and storage say of themselves and of what they hold."""

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
    """What a garbage collection of storage did: items examined and removed, and bytes freed."""

    examined: int = 0
    removed: int = 0
    freed: int = 0


class ClockConfirmed(Record, frozen=True, kw_only=True):
    """When a person last said that the clocks are right: Unix seconds, 0 for never."""

    at: float = 0.0


class KnownStore(Record, frozen=True, kw_only=True):
    """A store of blobs, by the id that lies beside its blobs; "" is none."""

    id: Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")] = ""


class NewPartial(Record, frozen=True, kw_only=True):
    """A partial upload to open: its size once complete, and metadata that is kept with it.

    Whoever chooses its `id`, 32 random hexadecimal digits, can open it again without opening a second one. `room` is
    how many bytes all open uploads of the same tenant may come to, where that has a limit.
    """

    id: Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")] = ""
    size: Annotated[int, Meta(ge=0)]
    metadata: Annotated[dict[str, str], Meta(max_length=32)] = {}
    room: Annotated[int, Meta(ge=0)] | None = None


class Partial(Record, frozen=True, kw_only=True):
    """A partial upload, of which `offset` bytes are durable.

    Every append moves `expires`. `outcome` is empty until the upload is closed; then it is what the caller of `close`
    has recorded (the master records the task's id).
    """

    id: str
    size: int
    offset: int
    metadata: dict[str, str] = {}
    expires: float = 0.0
    outcome: str = ""


class SharedDirectory(Record, frozen=True, kw_only=True):
    """Where storage keeps its blobs, for workers of the same file system; `token` names a file that is only there."""

    path: str
    token: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class NewFile(Record, frozen=True, kw_only=True):
    """A file that a worker has left in the shared directory, to be stored as a blob."""

    name: str
    token: str


class NewBlobLink(Record, frozen=True, kw_only=True):
    """A link that is wanted: how the bucket shall describe the bytes, and for how many seconds it is valid."""

    media_type: Annotated[str, Meta(max_length=200)]
    disposition: Annotated[str, Meta(max_length=2000)]
    seconds: Annotated[int, Meta(ge=1, le=3600)]


class BlobLink(Record, frozen=True, kw_only=True):
    """Where clients may fetch a blob; "" where they do not reach the bucket."""

    url: str


class StorageInfo(Record, frozen=True, kw_only=True):
    """What storage holds, how many more bytes fit, and the size of its disk. A bucket knows neither of the last two."""

    blobs: int
    size: int
    free: int | None = None
    total: int | None = None
