"""Test files that workers leave for storage: they are adopted by name and token, and removed if not requested."""

import os
import secrets
import time
from pathlib import Path

import pytest

from safelight import serve
from safelight.client.shared import SharedBlobs
from safelight.client.storage import StorageClient
from safelight.errors import Code, Error
from safelight.storage.__main__ import Config, build
from safelight.storage.directory import DirectoryStore
from safelight.storage.directory.handover import Handover
from storage.content import digest_of
from support.programs.ports import free_port


@pytest.fixture
async def port():
    return free_port()


def storage(data: Path, port: int):
    return serve.running("storage", Config(port=port, data=str(data), max_blob=1000), build)


def names(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "handover").iterdir())


def left(data: Path, content: bytes, name: str | None = None) -> str:
    name = name or secrets.token_hex(16)
    (data / "handover" / name).write_bytes(content)
    return name


async def test_a_file_is_adopted_once_and_hashed_by_storage(tmp_path, port):
    async with storage(tmp_path, port) as running, StorageClient.connect(running.url) as client:
        shared = await client.shared()
        for _ in range(2):
            blob = await client.adopt(left(tmp_path, b"a result"), shared.token)
            assert (blob.digest, blob.size) == (digest_of(b"a result"), 8)
            assert names(tmp_path) == [shared.token]
        assert await client.read(blob.digest) == b"a result"


async def test_files_that_no_worker_has_made_are_refused(tmp_path, port):
    (tmp_path / "secret").write_bytes(b"not for storage")
    async with storage(tmp_path / "data", port) as running, StorageClient.connect(running.url) as client:
        data, shared = tmp_path / "data", await client.shared()
        name = left(data, b"a result")
        link, hard, pipe, directory = (data / "handover" / secrets.token_hex(16) for _ in range(4))
        link.symlink_to(tmp_path / "secret")
        os.link(tmp_path / "secret", hard)
        os.mkfifo(pipe)
        directory.mkdir()
        asked = [
            (secrets.token_hex(16), shared.token), (name, secrets.token_hex(16)), ("../lock", shared.token),
            (shared.token, shared.token), (link.name, shared.token), (hard.name, shared.token),
            (pipe.name, shared.token),
        ]  # fmt: skip
        for each in asked:
            with pytest.raises(Error) as caught:
                await client.adopt(*each)
            assert caught.value.code is Code.NOT_FOUND, each
        with pytest.raises(Error):
            await client.adopt(directory.name, shared.token)
        assert (data / "handover" / name).read_bytes() == b"a result"
        with pytest.raises(Error) as caught:
            await client.adopt(left(data, b"x" * 1001), shared.token)
        assert caught.value.code is Code.TOO_LARGE
        assert (await client.info()).blobs == 0
        directory.rmdir()
    assert (tmp_path / "secret").read_bytes() == b"not for storage"


async def test_a_file_that_has_used_the_reserved_space_is_refused(tmp_path):
    async with (
        DirectoryStore.at(tmp_path, keep_free=1 << 60) as store,
        Handover.at(tmp_path, store) as handover,
    ):
        token = (await handover.shared()).token
        with pytest.raises(Error) as caught:
            await handover.adopt(left(tmp_path, b"a result"), token, limit=1000)
        assert caught.value.code is Code.STORAGE_FULL
        assert names(tmp_path) == [token]
        assert (await store.info()).blobs == 0


async def test_files_that_are_not_handed_over_are_removed(tmp_path, port):
    async with storage(tmp_path, port) as running, StorageClient.connect(running.url) as client:
        shared = await client.shared()
        old, young = left(tmp_path, b"old"), left(tmp_path, b"young")
        os.utime(tmp_path / "handover" / old, (time.time() - 4000,) * 2)
        os.utime(tmp_path / "handover" / shared.token, (time.time() - 4000,) * 2)
        assert (await client.shared()).token == shared.token
        assert names(tmp_path) == sorted([young, shared.token])
    assert names(tmp_path) == []


async def test_a_worker_uses_only_the_directory_of_the_running_storage(tmp_path, port):
    first, second = tmp_path / "first", tmp_path / "second"
    async with StorageClient.connect(f"127.0.0.1:{port}") as client:
        blobs = SharedBlobs(client)
        async with storage(first, port):
            blob = await blobs.put(b"one")
            assert blob.digest == digest_of(b"one")
            assert (await blobs.path(blob.digest)).read_bytes() == b"one"
            token = (await client.shared()).token
        left(first, b"", token)  # as in an old mount of it
        async with storage(second, port):
            assert await blobs.put(b"two") is None
            assert names(first) == [token]
            blobs._looked = 0.0
            assert (await blobs.put(b"two")).size == 3
            assert second in (await blobs.path(digest_of(b"two"))).parents
            (second / "handover").rename(second / "gone")
            assert await blobs.put(b"three") is None
            (second / "gone").rename(second / "handover")


async def test_a_directory_of_the_same_name_elsewhere_is_not_used(tmp_path, port, monkeypatch):
    async with storage(tmp_path / "here", port) as running, StorageClient.connect(running.url) as client:
        shared = await client.shared()
        (tmp_path / "there" / "handover").mkdir(parents=True)  # this path on another machine

        async def elsewhere():
            return shared.evolve(path=str(tmp_path / "there"))

        monkeypatch.setattr(client, "shared", elsewhere)
        blobs = SharedBlobs(client)
        assert await blobs.put(b"one") is None
        assert await blobs.path(digest_of(b"one")) is None
        assert names(tmp_path / "there") == []
