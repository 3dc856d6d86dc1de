"""Test that only its own user can read the files that a service writes."""

import asyncio
from contextlib import suppress

import pytest

from support.programs.processes import service


def open_to_others(*places):
    """Yield each file and directory with its permissions for others."""
    for path in (each for place in places for each in (place, *place.rglob("*"))):
        with suppress(FileNotFoundError):  # a temporary file that has got its name meanwhile
            yield str(path), path.stat().st_mode & 0o077


@pytest.mark.slow
async def test_only_its_user_can_read_files_of_a_service(tmp_path):
    data = tmp_path / "made" / "store"
    async with service("keyvaluestore", "--data", str(data)) as store:
        address = await store.address()
        storage_data = tmp_path / "storage"
        async with service("storage", address.removeprefix("http://"), "--data", str(storage_data)) as storage:
            await storage.address()
            modes = await asyncio.to_thread(lambda: dict(open_to_others(data.parent, storage_data)))
    assert len(modes) > 5
    assert {path: mode for path, mode in modes.items() if mode} == {}


async def test_a_directory_that_others_can_read_is_closed(tmp_path):
    data = tmp_path / "open"
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    async with service("keyvaluestore", "--data", str(data)) as store:
        await store.address()
        assert data.stat().st_mode & 0o077 == 0
