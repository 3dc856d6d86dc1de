"""Test that a copy names its target when that is full or cannot be written."""

import resource
from contextlib import contextmanager

import pytest

from safelight.cli.backup.taking import take
from safelight.cli.backup.target import writing_to
from safelight.errors import Code, Error
from safelight.storage.directory import DirectoryStore
from support.bodies import stream


@contextmanager
def largest_file(size):
    """Limit the size of files of this process, which the kernel reports like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
