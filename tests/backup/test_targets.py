"""Test that a copy names its target when that is full or cannot be written."""

import os
import resource
import shlex
import sqlite3
import stat
from contextlib import closing, contextmanager

import pytest

from safelight.cli.backup import entries, migrating
from safelight.cli.backup.archive import Database
from safelight.cli.backup.commands import migrate_command
from safelight.cli.backup.taking import take
from safelight.cli.backup.target import scratch, writing_to
from safelight.db.sqlite import SqliteStore
from safelight.errors import Code, Error
from safelight.sql import scripts
from safelight.storage.directory import DirectoryStore
from support.bodies import stream
from support.tasks import digest


@contextmanager
def largest_file(size):
    """Limit the size of files of this process, which the kernel reports like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def with_limit(size, write):
    with largest_file(size):
        write()


async def test_a_full_target_is_named_and_not_the_storage_that_is_copied(tmp_path):
    async with DirectoryStore.at(tmp_path / "storage") as store:
        with largest_file(4096), pytest.raises(Error) as refused, writing_to(tmp_path):
            await store.put(stream(bytes(1 << 20)))
    assert refused.value.code is Code.STORAGE_FULL
    assert refused.value.detail == f"{tmp_path} is full. Make room there, and run the command again."


@pytest.mark.parametrize("name", ["file", "file/below"])
async def test_a_target_that_cannot_be_made_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(Error) as refused, writing_to(tmp_path / name):
        await take(tmp_path / name, None, None, None)
    assert refused.value.code is Code.INVALID_REQUEST
    assert refused.value.detail.startswith(f"{tmp_path / name} cannot be written: ")


def test_a_database_without_room_names_the_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fill = "CREATE TABLE t (c); INSERT INTO t VALUES (zeroblob(1000000))"
    with pytest.raises(Error) as refused, scratch() as directory, closing(sqlite3.connect(directory / "new")) as file:
        with_limit(4096, lambda: file.executescript(fill))
    assert refused.value.code is Code.STORAGE_FULL
    assert refused.value.detail.startswith(f"{tmp_path}/safelight-")
    assert "TMPDIR" in refused.value.detail
    assert list(tmp_path.iterdir()) == []


async def store_with(root, data, identity=""):
    """Make a store with one blob, and perhaps an id."""
    async with DirectoryStore.at(root) as store:
        await store.put(stream(data))
    if identity:
        (root / "identity").write_text(identity * 32)


async def migrate(source, target):
    return await migrate_command(from_=f"file://{source}", to=f"file://{target}")


async def test_a_store_of_another_system_is_not_taken_over(tmp_path):
    await store_with(tmp_path / "ours", b"1", "a")
    await store_with(tmp_path / "theirs", b"2", "b")
    with pytest.raises(Error) as refused:
        await migrate(tmp_path / "ours", tmp_path / "theirs")
    assert refused.value.code is Code.CONFLICT
    assert (tmp_path / "theirs/identity").read_text() == "b" * 32
    assert len(list((tmp_path / "theirs/blobs").rglob("?" * 64))) == 1
    for _ in range(2):
        assert await migrate(tmp_path / "ours", tmp_path / "copy") == 0
    assert (tmp_path / "copy/identity").read_text().strip() == "a" * 32


async def test_the_way_back_can_be_pasted_into_a_shell(tmp_path, capfd):
    await store_with(tmp_path / "old & good", b"1")
    assert await migrate(tmp_path / "old & good", tmp_path / "new one") == 0
    back = shlex.split(capfd.readouterr().out.partition("To go back later: ")[2])
    assert back[2:] == ["--from", f"file://{tmp_path}/new one", "--to", f"file://{tmp_path}/old & good"]


async def test_a_damaged_blob_is_named_and_the_others_are_copied(tmp_path, capfd):
    async with DirectoryStore.at(tmp_path / "old") as old, DirectoryStore.at(tmp_path / "new") as new:
        for n in range(3):
            await old.put(stream(str(n).encode()))
        (damaged,) = (tmp_path / "old").rglob(digest(1))
        damaged.write_bytes(b"?")  # what was stored just now counts as verified, and is sent as it is
        done = await migrating.from_store(old, new, lambda _: None, verify=False)
        assert (done.copied, done.missing) == (2, {digest(1)})
    assert await migrate(tmp_path / "old", tmp_path / "newer") == 1
    assert f"lost or damaged 1 blob, the first is {digest(1)}" in " ".join(capfd.readouterr().err.split())
    assert len(list((tmp_path / "newer").rglob("?" * 64))) == 2


async def test_a_source_that_is_no_store_is_refused_and_unchanged(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(Error, match="Correct --from") as refused:
            await migrate(tmp_path / name, tmp_path / "new")
        assert refused.value.code is Code.NOT_FOUND
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


async def test_one_store_is_not_copied_into_itself(tmp_path):
    await store_with(tmp_path, b"1")
    with pytest.raises(Error, match="name the same store"):
        await migrate(tmp_path, f"{tmp_path}/")


async def test_only_the_user_can_read_a_copy(tmp_path):
    await store_with(tmp_path / "old", b"1", "a")
    before = os.umask(0o022)
    try:
        await migrate(tmp_path / "old", tmp_path / "new")
    finally:
        assert os.umask(before) == 0o022
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "new", *(tmp_path / "new").rglob("*"))}
    assert modes == {0}


async def test_a_store_in_use_is_to_be_stopped(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite"):
        with pytest.raises(Error, match="Stop the service that uses it, or leave out --from"):
            Database.migrated(tmp_path / "tasks.sqlite", tmp_path / "copy")
    async with DirectoryStore.at(tmp_path / "storage"):
        with pytest.raises(Error, match="Stop the service that uses it, or leave out --from"):
            await migrate(tmp_path / "storage", tmp_path / "new")


async def test_a_database_of_an_older_version_is_copied_and_unchanged(tmp_path):
    steps = scripts.migrations("safelight.db.sqlite")
    with closing(sqlite3.connect(tmp_path / "old")) as old:
        for step in steps[:-1]:
            old.executescript(step)
        old.execute(f"PRAGMA user_version = {len(steps) - 1}")
    before = (tmp_path / "old").read_bytes()
    Database.migrated(tmp_path / "old", tmp_path / "copy").close()
    assert (tmp_path / "old").read_bytes() == before
    with closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone()[0] == len(steps)


async def test_the_database_of_another_service_is_not_taken_for_a_newer_version(tmp_path):
    async with SqliteStore.open(tmp_path / "tasks.sqlite"):
        pass
    with pytest.raises(Error, match="was not written by safelight: the ") as refused:
        async with entries.opened(f"sqlite://{tmp_path}/tasks.sqlite"):
            pass
    assert refused.value.code is Code.DAMAGED_BLOB


async def test_a_file_of_another_service_is_named_and_not_its_copy(tmp_path):
    path = tmp_path / "keyvaluestore.sqlite"
    async with entries.opened(f"sqlite://{path}", made=True):
        pass
    with pytest.raises(Error) as refused:
        Database.migrated(path, tmp_path / "copy")
    assert refused.value.detail.startswith(f"{path} was not written by safelight: ")
