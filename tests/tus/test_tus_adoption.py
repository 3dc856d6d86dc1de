"""Test uploads whose file becomes a blob of the directory: without a copy or a second reading, and with crashes."""

import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from io import FileIO
from pathlib import Path

import safelight.storage.files
import safelight.storage.partial.directory
from safelight.errors import Code
from safelight.storage.directory import DirectoryStore
from safelight.storage.partial.directory import PartialDirectory
from safelight.storage.partial.store import PartialLimits
from safelight.wire import NewPartial
from support.bodies import stream
from support.tasks import refused

DATA = bytes(range(256)) * 12_000  # written to the disk in three chunks


@asynccontextmanager
async def opened_in(directory: Path) -> AsyncIterator[tuple[DirectoryStore, PartialDirectory]]:
    """Open a store of blobs, and of uploads that become blobs of it."""
    async with (
        DirectoryStore.at(directory / "blobs") as blobs,
        PartialDirectory.at(directory / "partials", blobs, PartialLimits()) as store,
    ):
        yield blobs, store


@contextmanager
def reading_counted(monkeypatch):
    """Count the bytes that are read from files."""
    read, whole = FileIO.read, hashlib.file_digest
    counts = []

    class Counted(FileIO):
        def read(self, *size):
            data = read(self, *size)
            counts.append(len(data))
            return data

    def digest(file, name):
        counts.append(os.fstat(file.fileno()).st_size)
        return whole(file, name)

    monkeypatch.setattr(safelight.storage.files, "FileIO", Counted)
    monkeypatch.setattr(safelight.storage.partial.directory, "FileIO", Counted)
    monkeypatch.setattr(hashlib, "file_digest", digest)
    yield counts
    monkeypatch.undo()


async def test_the_file_of_an_upload_becomes_the_blob_and_is_read_again_only_after_a_restart(tmp_path, monkeypatch):
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        for restarted in (False, True):
            data = DATA + bytes([restarted])
            async with AsyncExitStack() as stack:
                store = await stack.enter_async_context(
                    PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits())
                )
                opened = await store.create(NewPartial(size=len(data)))
                await store.append(opened.id, 0, stream(data[:1000], data[1000:2_000_000]))
                wrong = f"md5:{hashlib.md5(b'x', usedforsecurity=False).hexdigest()}"
                await refused(Code.DIGEST_MISMATCH, store.append(opened.id, 2_000_000, stream(b"zz"), checksum=wrong))
                file = (tmp_path / "partials" / opened.id / "bytes").stat().st_ino
                if restarted:
                    await stack.aclose()
                    store = await stack.enter_async_context(
                        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits())
                    )
                await store.append(opened.id, 2_000_000, stream(data[2_000_000:]))
                with reading_counted(monkeypatch) as counts:
                    blob = await store.finish(opened.id)
                assert blob.digest == hashlib.sha256(data).hexdigest()
                assert sum(counts) == (len(data) if restarted else 0)
                (placed,) = (tmp_path / "blobs" / "blobs").glob(f"*/{blob.digest}")
                assert placed.stat().st_ino == file


async def test_the_name_of_the_blob_is_flushed_before_the_bytes_are_moved(tmp_path, monkeypatch):
    """After a power cut, either the bytes of the upload exist, or the blob and its name."""
    flush, move, done = os.fsync, os.replace, []

    def flushed(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        flush(descriptor)

    def moved(source, target):
        done.append(Path(target))
        move(source, target)

    async with (
        DirectoryStore.at(tmp_path / "blobs", fresh_for=3600.0) as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(os, "replace", moved)
        digest = (await store.finish(opened.id)).digest
        assert (await store.close(opened.id, "task")).outcome == "task"
        shard = tmp_path / "blobs" / "blobs" / digest[:2]
        assert done == [tmp_path / "partials" / opened.id, shard / digest, shard]


async def test_a_power_cut_can_undo_only_the_outcome(tmp_path):
    async with opened_in(tmp_path) as (blobs, store):
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        blob = await store.finish(opened.id)
        assert (await store.close(opened.id, "task")).outcome == "task"
    for left in (None, b"", b"ta", b"\0\0\0\0\0"):
        file = tmp_path / "partials" / opened.id / "outcome"
        file.unlink() if left is None else file.write_bytes(left)
        async with opened_in(tmp_path) as (blobs, store):
            assert (await store.get(opened.id)).outcome == ""
            assert await store.finish(opened.id) == blob
            assert (await store.close(opened.id, "task")).outcome == "task"


async def test_a_finished_upload_keeps_its_blob_until_it_is_closed(tmp_path):
    """This also holds after a kill, when only the name of the blob remains of the upload."""

    async def collected():
        (freed,) = await blobs.remove([blob.digest], before=time.time() + 3600.0)
        return freed is not None

    async with opened_in(tmp_path) as (blobs, store):
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        blob = await store.finish(opened.id)
        assert not await collected()
    async with opened_in(tmp_path) as (blobs, store):
        found = await store.get(opened.id)
        assert (found.offset, found.outcome) == (3, "")
        assert not await collected()
        assert await store.finish(opened.id) == blob
        await refused(Code.CONFLICT, store.append(opened.id, 3, stream(b"")))
        assert (await store.close(opened.id, "task")).outcome == "task"
        assert await collected()
        again = await store.create(NewPartial(size=3))
        await store.append(again.id, 0, stream(b"abc"))
        assert await store.finish(again.id) == blob
        await store.delete(again.id)
        assert await collected()


async def test_an_upload_of_a_stored_blob_takes_no_space(tmp_path):
    async with opened_in(tmp_path) as (blobs, store):
        stored = await blobs.put(stream(b"abc"))
        opened = await store.create(NewPartial(size=3))
        await store.append(opened.id, 0, stream(b"abc"))
        assert (await store.finish(opened.id)).digest == stored.digest
        assert not (tmp_path / "partials" / opened.id / "bytes").exists()
        assert await store.finish(opened.id) == await store.finish(opened.id)


async def test_blobs_on_another_file_system_get_a_copy(tmp_path):
    here = tmp_path.stat().st_dev  # may be in memory or on a disk
    place = next(place for place in map(Path, ("/dev/shm", "/var/tmp")) if place.stat().st_dev != here)  # noqa: S108
    with tempfile.TemporaryDirectory(dir=place, prefix="partials-") as other:
        async with (
            DirectoryStore.at(tmp_path / "blobs") as blobs,
            PartialDirectory.at(Path(other, "partials"), blobs, PartialLimits()) as store,
        ):
            opened = await store.create(NewPartial(size=len(DATA)))
            await store.append(opened.id, 0, stream(DATA))
            blob = await store.finish(opened.id)
            assert blob.digest == hashlib.sha256(DATA).hexdigest()
            assert await store.finish(opened.id) == blob
            assert (await store.close(opened.id, "task")).outcome == "task"
            assert not list(blobs._incoming.iterdir())


async def test_an_upload_keeps_the_reserved_space_free(tmp_path):
    async with DirectoryStore.at(tmp_path / "blobs") as blobs:
        free = blobs.free()
    async with (
        DirectoryStore.at(tmp_path / "blobs", keep_free=free // 2) as blobs,
        PartialDirectory.at(tmp_path / "partials", blobs, PartialLimits()) as store,
    ):
        await refused(Code.STORAGE_FULL, store.create(NewPartial(size=free * 3 // 4)))
        opened = await store.create(NewPartial(size=len(DATA)))
        blobs.room._keep_free, blobs.room._looked = free * 2, 0.0  # as if others had filled the rest
        await refused(Code.STORAGE_FULL, store.append(opened.id, 0, stream(DATA[:2_000_000], DATA[2_000_000:])))
        blobs.room._keep_free = 0
        offset = (await store.get(opened.id)).offset
        await store.append(opened.id, offset, stream(DATA[offset:]))
        blobs.room._keep_free, blobs.room._looked = free * 2, 0.0  # the bytes have arrived, so there is room for them
        assert (await store.finish(opened.id)).digest == hashlib.sha256(DATA).hexdigest()
