"""Test the directory backend only: files, damage, full disks, left-overs, one process at a time."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from safelight.errors import Code, Error
from safelight.storage.directory import DirectoryStore
from safelight.storage.maintenance.scrubber import Scrubber
from storage.content import chunks, digest_of, files, made, read
from support.guests.disks import may_mount, small_disk

MIB = 1 << 20


async def test_everything_survives_a_restart(tmp_path):
    data = made(2 * MIB)
    async with DirectoryStore.at(tmp_path) as store:
        stored = await store.put(chunks(data))
        await store.name("7", stored.digest)
    async with DirectoryStore.at(tmp_path) as store:
        assert await read(store, stored.digest, verify=True) == data
        assert (await store.named("7")).digest == stored.digest
        assert (await store.info()).blobs == 1


async def test_left_overs_are_removed_at_the_start(tmp_path):
    async with DirectoryStore.at(tmp_path):
        pass
    (tmp_path / "incoming" / "half").write_bytes(b"half a blob")
    async with DirectoryStore.at(tmp_path) as store:
        assert files(tmp_path, "incoming") == []
        assert (await store.info()).blobs == 0


async def test_nothing_stays_in_incoming(tmp_path):
    async def broken():
        yield made(3 * MIB)
        raise ConnectionResetError

    async with DirectoryStore.at(tmp_path) as store:
        await store.put(chunks(made(3 * MIB)))
        await store.put(chunks(made(3 * MIB)))
        for attempt in (store.put(chunks(b"x"), expected="0" * 64), store.put(chunks(made(2 * MIB)), limit=MIB)):
            with pytest.raises(Error):
                await attempt
        with pytest.raises(ConnectionResetError):
            await store.put(broken())
    assert files(tmp_path, "incoming") == []


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_directory_in_place_of_the_store_is_neither_trusted_nor_changed(tmp_path, replaced):
    """Nothing, or another store: as where a disk is unmounted, or another one is mounted over it."""
    root, away, other = tmp_path / "root", tmp_path / "away", tmp_path / "other"
    async with DirectoryStore.at(other) as store:
        strange = (await store.put(chunks(b"strange"))).digest
    async with DirectoryStore.at(root) as store:
        blob = await store.put(chunks(b"known"))
        await store.name("7", blob.digest)
        root.rename(away)
        if replaced:
            other.rename(root)

        async def listed() -> list[str]:
            return [item async for item in store.aged(math.inf)]

        calls = [
            lambda: read(store, blob.digest),
            lambda: store.put(chunks(b"known")),
            lambda: store.put(chunks(b"strange")),
            lambda: store.refresh(blob),
            lambda: store.named("7"),
            lambda: store.name("8", blob.digest),
            lambda: store.remove([strange], before=math.inf),
            listed,
        ]
        for number, call in enumerate(calls):
            with pytest.raises(Error) as refused:
                await call()
            assert refused.value.code is Code.UNAVAILABLE, number
        if replaced:
            assert strange in {path.name for path in files(root, "blobs")}
            root.rename(other)
        away.rename(root)
        assert await read(store, blob.digest) == b"known"
        assert (await store.named("7")).digest == blob.digest
        with pytest.raises(Error) as refused:
            await read(store, strange)
        assert refused.value.code is Code.NOT_FOUND
        assert (await store.put(chunks(b"strange"))).new


async def test_a_directory_belongs_to_one_process(tmp_path):
    async with DirectoryStore.at(tmp_path):
        with pytest.raises(Error, match="in use by another process"):
            async with DirectoryStore.at(tmp_path):
                raise AssertionError


async def test_damage_is_found_and_repaired_by_storing_the_bytes_again(tmp_path):
    data = made(2 * MIB)
    async with DirectoryStore.at(tmp_path) as store:
        stored = await store.put(chunks(data))
        before = await store.info()
        path = tmp_path / "blobs" / stored.digest[:2] / stored.digest
        with path.open("r+b") as file:
            file.seek(MIB)
            file.write(b"damage")
        with pytest.raises(Error) as caught:
            await read(store, stored.digest, verify=True)
        assert caught.value.code is Code.DAMAGED_BLOB
        assert (await store.put(chunks(data))).new
        assert await read(store, stored.digest, verify=True) == data
        path.write_bytes(b"cut short")
        assert (await store.put(chunks(data))).new
        assert await read(store, stored.digest, verify=True) == data
        assert (await store.info()).blobs == before.blobs == 1


async def test_a_blob_that_cannot_be_read_is_damaged_and_replaced(tmp_path, monkeypatch):
    datas = [made(1000, seed) for seed in range(3)]
    async with DirectoryStore.at(tmp_path) as store:
        lost, replaced, sound = [(await store.put(chunks(data))).digest for data in datas]
    async with DirectoryStore.at(tmp_path) as store:  # which has not verified them yet
        with monkeypatch.context() as patch:
            bad = {lost, replaced}
            patch.setattr(hashlib, "file_digest", unreadable(bad))
            assert (await store.put(chunks(datas[1]))).new
            bad.remove(replaced)
            counted: list[bool] = []
            assert await Scrubber(store, 0, lambda _size, *, damaged: counted.append(damaged), None).walk() == {lost}
            assert sorted(counted) == [False, False, True]
            assert (await store.put(chunks(datas[0]))).new
        assert not (await store.put(chunks(datas[2]))).new
        for data, digest in zip(datas, (lost, replaced, sound), strict=True):
            assert await read(store, digest, verify=True) == data
        assert (await store.info()).blobs == 3


async def test_no_blob_counts_as_damaged_while_the_whole_disk_fails(tmp_path, monkeypatch):
    data = made(1000)
    async with DirectoryStore.at(tmp_path) as store:
        digest = (await store.put(chunks(data))).digest

    def failing(_file: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    async with DirectoryStore.at(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(hashlib, "file_digest", unreadable({digest}))
            patch.setattr(os, "fsync", failing)
            assert await Scrubber(store, 0, lambda _size, *, damaged: None, None).walk() == set()
            for attempt in (store.put(chunks(data)), read(store, digest, verify=True)):
                with pytest.raises(Error) as refused:
                    await attempt
                assert refused.value.code is Code.UNAVAILABLE
        assert not (await store.put(chunks(data))).new
    assert [path.name for path in files(tmp_path, "blobs")] == [digest]


def unreadable(digests: set[str]):
    """Return a replacement of `hashlib.file_digest` that cannot read these blobs."""
    real = hashlib.file_digest

    def read_or_fail(file, algorithm):
        if Path(f"/proc/self/fd/{file.fileno()}").readlink().name in digests:
            raise OSError(errno.EIO, "Input/output error")
        return real(file, algorithm)

    return read_or_fail


async def test_bytes_that_would_leave_too_little_room_are_refused(tmp_path):
    async with DirectoryStore.at(tmp_path, keep_free=1 << 60) as store:
        for size in (10, 3 * MIB):
            with pytest.raises(Error) as caught:
                await store.put(chunks(made(size)))
            assert caught.value.code is Code.STORAGE_FULL
        assert (await store.info()).free == 0
    assert files(tmp_path, "blobs") + files(tmp_path, "incoming") == []


async def test_a_full_disk_refuses_blobs_until_there_is_space(tmp_path):
    if not may_mount(tmp_path):
        return  # mounting is not permitted; the previous test covers the refusal
    with small_disk(tmp_path / "disk", "8m") as disk:
        async with DirectoryStore.at(disk) as store:
            kept = await store.put(chunks(made(5 * MIB)))
            with pytest.raises(Error) as caught:
                await store.put(chunks(made(5 * MIB, seed=1)))
            assert caught.value.code is Code.STORAGE_FULL
            assert (await store.put(chunks(made(MIB, seed=2)))).new
            assert await read(store, kept.digest, verify=True) == made(5 * MIB)
            assert (await store.info()).blobs == 2
        assert files(disk, "incoming") == []


async def test_a_blob_that_was_stored_within_the_hour_is_not_touched_and_is_kept_an_hour_longer(tmp_path, monkeypatch):
    async with DirectoryStore.at(tmp_path, fresh_for=3600.0) as store:
        stored = await store.put(chunks(b"once"))
        path = tmp_path / "blobs" / stored.digest[:2] / stored.digest
        before = path.stat().st_mtime_ns
        flushed: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", flushed.append)
            assert not (await store.put(chunks(b"once"))).new
        assert (flushed, path.stat().st_mtime_ns) == ([], before)
        assert await store.remove([stored.digest], before=time.time() + 3590) == [None]
        os.utime(path, (time.time() - 3700,) * 2)  # as if an hour had passed
        await store.put(chunks(b"once"))
        assert path.stat().st_mtime > time.time() - 60
        os.utime(path, (time.time() + 3700,) * 2)  # as if the clock had been set back
        await store.put(chunks(b"once"))
        assert path.stat().st_mtime < time.time() + 60
        assert await store.remove([stored.digest], before=time.time() + 3610) == [4]


async def test_bytes_whose_flush_failed_are_flushed_before_they_are_acknowledged_again(tmp_path, monkeypatch):
    flush, directories = os.fsync, []

    def failing(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            directories.append(file)
            if len(directories) == 1:
                raise OSError(errno.EIO, "the disk fails")
        flush(file)

    async with DirectoryStore.at(tmp_path, fresh_for=3600.0) as store:
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(Error):
            await store.put(chunks(b"twice"))
        await store.put(chunks(b"twice"))
        assert len(directories) == 2
        await store.put(chunks(b"twice"))
        assert len(directories) == 2


async def test_a_flush_that_hangs_does_not_delay_others(tmp_path, monkeypatch):
    flush, hangs, begun = os.fsync, threading.Event(), threading.Event()

    def hanging(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode) and not begun.is_set():
            begun.set()
            assert hangs.wait(60)
        flush(file)

    async with DirectoryStore.at(tmp_path) as store:
        first = b"first"
        others = (str(number).encode() for number in range(10_000))
        beside = next(data for data in others if digest_of(data)[:2] == digest_of(first)[:2])
        old = await store.put(chunks(beside))
        monkeypatch.setattr(os, "fsync", hanging)
        putting = asyncio.create_task(store.put(chunks(first)))
        try:
            assert await asyncio.to_thread(begun.wait, 60)
            async with asyncio.timeout(60):
                assert await store.remove([old.digest], before=time.time() + 60) == [len(beside)]
                await store.put(chunks(beside))  # into the same directory
                await store.put(chunks(first))  # the same bytes, which this call flushes itself
            assert not putting.done()
        finally:
            hangs.set()
        assert (await putting).new


async def test_a_name_never_becomes_a_path(tmp_path):
    root = tmp_path / "deep" / "store"
    async with DirectoryStore.at(root) as store:
        stored = await store.put(chunks(b"picture"))
        before = sorted(os.walk(tmp_path))
        for name in ("../../escape", "/etc/escape", "a/../../b"):
            await store.name(name, stored.digest)
        after = sorted(os.walk(tmp_path))
    assert [row[:2] for row in before] == [row[:2] for row in after]
    assert len(files(root, "names")) == 3
    assert digest_of(b"picture") == stored.digest
