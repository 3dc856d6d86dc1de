"""Test that what `safelight migrate` writes as root belongs to the user of the service, who could not read it."""

import os
from contextlib import suppress

import pytest

from safelight.cli.backup import entries, migrating
from safelight.cli.backup.owners import give
from safelight.storage.directory import DirectoryStore
from support.bodies import stream

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

USER = (65534, 65533)


def owners(root):
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in root.rglob("*")}


@pytest.fixture
def root(tmp_path):
    """A directory of a user."""
    root = tmp_path / "user"
    root.mkdir()
    os.chown(root, *USER)
    return root


@pytest.mark.parametrize("fails", [False, True])
async def test_copied_blobs(root, fails):
    with suppress(ZeroDivisionError):
        async with migrating.replacement(f"file://{root}/new/storage", "an id") as store:
            await store.put(stream(b"photo"))
            assert not fails or 1 / 0
    assert owners(root) == {USER}
    async with DirectoryStore.at(root / "new/storage") as store:
        assert len([item async for item in store.aged(float("inf"))]) == 1


async def test_copied_entries(root):
    async with entries.opened(f"sqlite://{root}/below/new.sqlite", made=True) as store:
        await store.set("key", "value")
    assert owners(root) == {USER}


def test_files_of_others_stay_theirs_in_a_directory_of_root(tmp_path):
    file = tmp_path / "file"
    file.touch()
    os.chown(file, *USER)
    give(tmp_path)
    assert owners(tmp_path) == {USER}
