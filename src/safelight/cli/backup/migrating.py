"""Copy blobs from one backend of storage to another, while the system works or from a store that no service uses."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.cli.backup import owners
from safelight.cli.backup.copying import Copying, Open, patiently, reading
from safelight.client.db import DbClient
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.sql.sqlite import STOP
from safelight.storage.files import IN_USE, TextFile, guarded
from safelight.storage.identity import MARK
from safelight.storage.store import NAME_PREFIX, BlobStore
from safelight.wire import Reference

if TYPE_CHECKING:
    from safelight.storage.bucket.objects import Text

_PAGE = 1000
_ROUNDS = 20
"""The most rounds in which to copy uploads that arrive meanwhile; each round has less to copy than the one before."""


def check_url(url: str) -> None:
    """Raise INVALID_REQUEST for a URL that names no store of blobs."""
    scheme, _, place = url.partition("://")
    if scheme == "file" and not Path(place).is_absolute():
        raise Error(Code.INVALID_REQUEST, f"{url} names no directory; write file:///DIRECTORY.")
    if scheme not in ("file", "s3", "gs", "az"):
        detail = f"{url} is not a store of blobs. Write file:///DIRECTORY, s3://BUCKET/PREFIX, gs://… or az://…"
        raise Error(Code.INVALID_REQUEST, detail)


@asynccontextmanager
async def opened(url: str, *, readonly: bool = False) -> AsyncIterator[BlobStore]:
    """Open the store that a URL of ``safelight storage --store`` names. Raises INVALID_REQUEST, UNAVAILABLE.

    With `readonly`, it must exist, and nothing is written to it.
    """
    check_url(url)
    scheme, _, place = url.partition("://")
    match scheme:
        case "file":
            from safelight.storage.directory.store import DirectoryStore  # noqa: PLC0415 - only what is chosen is imported

            async with AsyncExitStack() as stack:
                try:
                    directory = await stack.enter_async_context(DirectoryStore.at(Path(place), readonly=readonly))
                except Error as error:
                    if not error.detail.endswith(IN_USE):
                        raise
                    raise Error(Code.CONFLICT, f"{url} is in use by another process. {STOP}") from None
                yield directory
        case _:
            try:
                from safelight.storage.bucket import BucketStore  # noqa: PLC0415 - as above
            except ModuleNotFoundError:
                detail = f"{url} needs the extra buckets: pip install 'safelight[buckets]'."
                raise Error(Code.INVALID_REQUEST, detail) from None
            async with BucketStore.at(url) as bucket:
                yield bucket


@asynccontextmanager
async def replacement(url: str, known: str) -> AsyncIterator[BlobStore]:
    """Open a store that replaces the one with an id, which it has at the end, so that storage starts with it.

    "" is no id. Raises CONFLICT if it is the store of another system, whose storage would then refuse it.
    """
    if known and (found := await id_of(url)) not in ("", known):
        detail = (
            f"{url} is the store of another system, with the id {found}. Name an empty directory or prefix. If "
            f"nothing uses that store any more, delete the file or object {MARK} in it, and run the command again."
        )
        raise Error(Code.CONFLICT, detail)
    check_url(url)
    scheme, _, place = url.partition("://")
    with owners.giving(Path(place)) if scheme == "file" else nullcontext():
        async with opened(url) as store:
            yield store
            if known:
                await asyncio.to_thread(guarded, _mark(url).write_text, f"{known}\n")


async def check_source(url: str) -> None:
    """Raise NOT_FOUND if there is no store to copy. Nothing is made there."""
    check_url(url)
    scheme, _, place = url.partition("://")
    if scheme == "file":
        found = await asyncio.to_thread((Path(place) / "blobs").is_dir)
    else:
        async with opened(url) as store:
            found = await id_of(url) != "" or [item async for item in store.aged(math.inf)] != []
    if not found:
        raise Error(Code.NOT_FOUND, f"{url} holds no photos or results. Correct --from.")


async def id_of(url: str) -> str:
    """Return the id of a store that no service uses, or "" if it has none."""
    return await asyncio.to_thread(guarded, _mark(url).read)


def _mark(url: str) -> TextFile | Text:
    scheme, _, place = url.partition("://")
    if scheme == "file":
        return TextFile(Path(place) / MARK)
    from safelight.storage.bucket import Bucket  # noqa: PLC0415 - only what is chosen is imported

    return Bucket(url).text(MARK)


async def from_system(
    db: DbClient, storage: StorageClient, target: BlobStore, progress: Callable[[Copying], None], *, verify: bool
) -> Copying:
    """Copy the blobs that tasks refer to out of a running system, in rounds until one finds nothing new.

    Raises what the services and the target raise; another call copies only the rest.
    """
    copying = Copying(reading(storage), storage.named, target, verify=verify)
    for _ in range(_ROUNDS):
        before, copying.names, copying.missing = copying.copied, 0, set()
        after: int | None = 0
        while after is not None:
            page = await patiently(partial(db.referenced, after))
            await copying.copy(page)
            progress(copying)
            after = page.next
        if copying.copied == before:
            break
    return copying


async def from_store(
    source: BlobStore, target: BlobStore, progress: Callable[[Copying], None], *, verify: bool
) -> Copying:
    """Copy everything out of a store that no service uses."""
    copying = Copying(_opening(source), source.named, target, verify=verify)
    names: list[str] = []
    digests: list[str] = []

    async def flush() -> None:
        await copying.copy(Reference(digests=digests, names=names))
        names.clear()
        digests.clear()
        progress(copying)

    async for item in source.aged(math.inf):
        if item.startswith(NAME_PREFIX):
            names.append(item.removeprefix(NAME_PREFIX))
        else:
            digests.append(item)
        if len(names) + len(digests) >= _PAGE:
            await flush()
    await flush()
    return copying


def _opening(store: BlobStore) -> Open:
    @asynccontextmanager
    async def opening(digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with store.open(digest) as blob:
            yield blob.chunks()

    return opening
