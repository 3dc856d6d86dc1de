"""The backends of storage, which the URL of a store selects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import msgspec

from safelight import settings
from safelight.client.availability.reachability import Reachability
from safelight.errors import Code, Error
from safelight.steady import Ages
from safelight.storage.directory.handover import Handover
from safelight.storage.files import TextFile, guarded
from safelight.storage.identity import MARK, Marks
from safelight.storage.maintenance.collector import KnownDb, Turn
from safelight.storage.partial.store import PartialLimits, PartialStore
from safelight.storage.store import BlobStore
from safelight.wire import BlobLink, NewBlobLink

_FRESH_FOR = 3600.0
"""Seconds for which a new blob is not touched when it is stored again."""


MakeLink = Callable[[str, NewBlobLink], BlobLink]
"""Makes a link to the blob with a digest."""


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """The stores of blobs and partial uploads, and the state that a garbage collection needs."""

    blobs: BlobStore
    partials: PartialStore
    known_db: KnownDb
    marks: Marks
    """The files or objects with the ids of the store and of its database."""
    turn: Turn
    handover: Handover | None = None
    link: MakeLink | None = None
    """Makes links for clients, if they can reach the bucket."""
    reachability: Reachability | None = None
    """Whether the bucket answers; None for a directory."""


@asynccontextmanager
async def directory(
    path: Path, data: Path, keep_free: int, grace: float, limits: PartialLimits, ages: Ages
) -> AsyncIterator[Backend]:
    """Keep blobs in a directory, and partial uploads in the data directory."""
    from safelight.storage.directory.format import check_format  # noqa: PLC0415
    from safelight.storage.directory.store import DirectoryStore  # noqa: PLC0415 - only what is chosen is imported
    from safelight.storage.partial.directory import PartialDirectory  # noqa: PLC0415

    await asyncio.to_thread(guarded, check_format, path)
    async with (
        DirectoryStore.at(path, keep_free=keep_free, fresh_for=min(_FRESH_FOR, grace / 24)) as blobs,
        PartialDirectory.at(data / "partials", blobs, limits, ages) as partials,
        Handover.at(path, blobs) as handover,
    ):
        known = TextFile(path / "db")
        await asyncio.to_thread(guarded, _move, TextFile(data / "db"), known)
        marks = Marks(TextFile(path / MARK), known)
        yield Backend(blobs=blobs, partials=partials, known_db=known, marks=marks, turn=nullcontext, handover=handover)


def _move(old: TextFile, new: TextFile) -> None:
    """Keep the id of the database beside the blobs, where earlier releases kept it in the data directory."""
    if not new.read() and (known := old.read()):
        new.create(f"{known}\n")


@asynccontextmanager
async def bucket(url: str, public: str | None, limits: PartialLimits, ages: Ages) -> AsyncIterator[Backend]:
    """Keep everything in a bucket, which any number of instances can use. `public` is its URL for clients."""
    try:
        from safelight.storage.bucket import BucketStore  # noqa: PLC0415 - only what is chosen is imported
        from safelight.storage.bucket.links import Links  # noqa: PLC0415
        from safelight.storage.bucket.turn import turn  # noqa: PLC0415
        from safelight.storage.partial.bucket import PartialBucket  # noqa: PLC0415
    except ModuleNotFoundError:
        settings.fail(f"--store {url} needs the extra buckets: pip install 'safelight[buckets]'.")
    try:
        link = Links(url, public).make if public else None
    except Error as error:
        settings.fail(error.detail)
    try:
        opened = BucketStore.at(url, ages)
        async with (
            opened as blobs,
            PartialBucket.at(blobs.bucket, blobs, limits, ages) as partials,
            blobs.bucket.reachability.asked(blobs.bucket.ask),
        ):
            known = blobs.bucket.text("db")
            yield Backend(
                blobs=blobs,
                partials=partials,
                known_db=known,
                marks=Marks(blobs.bucket.text(MARK), known),
                turn=lambda: turn(blobs.bucket),
                link=link,
                reachability=blobs.bucket.reachability,
            )
    except Error as error:
        if error.code is Code.INVALID_REQUEST and error.extra.get("position") == "store":
            settings.fail(f"--store: {error.detail}")
        raise
