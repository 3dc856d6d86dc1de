"""Test that backups and stores on a file system that nobody can write to are checked, restored and copied."""

import json
import shutil
import subprocess

import pytest

from backup.test_hostile_backups import DIGEST, PHOTO, TASK, backup
from safelight.errors import Code
from safelight.storage.directory import DirectoryStore
from support.bodies import stream
from support.programs.command import safelight
from support.tasks import refused

READ_ONLY = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"')
"""Mounts a directory read-only, in a mount namespace, for the command that follows."""
CLASSIC = TASK.replace("'%s', 7,", "NULL, 0,")
"""A task of the classic protocol, whose photo is stored under the id of the task."""
NAME = "1-aaaaaaaaaa"

needs_mounts = pytest.mark.skipif(
    subprocess.run([*READ_ONLY[:4], "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode != 0,
    reason="needs a mount namespace",
)


@pytest.fixture(params=[TASK % DIGEST, CLASSIC], ids=["digest", "classic name"])
async def kept(tmp_path, request):
    """Return a backup of one task with its photo."""
    root = await backup(tmp_path / "kept", request.param)
    async with DirectoryStore.at(root / "storage") as store:
        await store.name(NAME, DIGEST)
    return root


def everything(root):
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.slow
@needs_mounts
def test_a_backup_on_a_read_only_disk_is_checked_and_restored(kept, tmp_path):
    checked = safelight("restore", kept, "--check", "--json", before=(*READ_ONLY, str(kept)))
    assert checked.returncode == 0, checked.stderr
    restored = safelight("restore", kept, "--data", tmp_path / "new", before=(*READ_ONLY, str(kept)))
    assert restored.returncode == 0, restored.stderr
    assert (tmp_path / "new/storage/blobs" / DIGEST[:2] / DIGEST).read_bytes() == PHOTO


@pytest.mark.slow
@needs_mounts
def test_a_store_on_a_read_only_disk_is_copied(kept, tmp_path):
    words = ("migrate", "--from", f"file://{kept}/storage", "--to", f"file://{tmp_path}/new", "--json")
    copied = safelight(*words, before=(*READ_ONLY, str(kept)))
    assert copied.returncode == 0, copied.stderr
    assert json.loads(copied.stdout)["copied"] == 1


def test_a_check_changes_nothing(kept):
    before = everything(kept)
    assert safelight("restore", kept, "--check").returncode == 0
    assert everything(kept) == before


def test_a_copy_without_empty_files_and_directories_is_complete(kept, tmp_path):
    for path in sorted((kept / "storage").rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    (kept / "storage/lock").unlink()
    assert safelight("restore", kept, "--check").returncode == 0
    words = ("migrate", "--from", f"file://{kept}/storage", "--to", f"file://{tmp_path}/new", "--json")
    assert json.loads(safelight(*words).stdout)["copied"] == 1


def test_what_cannot_be_read_is_named(kept):
    shutil.rmtree(kept / "storage")
    checked = safelight("restore", kept, "--check")
    assert checked.returncode == 4
    assert f"{kept}/storage cannot be read: No such file or directory." in checked.stderr


async def test_readers_share_a_directory_but_not_with_a_writer(tmp_path):
    async with DirectoryStore.at(tmp_path) as store:
        await store.put(stream(PHOTO))
        await refused(Code.CONFLICT, DirectoryStore.at(tmp_path, readonly=True).__aenter__())
    async with DirectoryStore.at(tmp_path, readonly=True), DirectoryStore.at(tmp_path, readonly=True) as store:
        async with store.open(DIGEST, verify=True) as blob:
            assert blob.blob.size == len(PHOTO)
        await refused(Code.CONFLICT, DirectoryStore.at(tmp_path).__aenter__())
    assert list((tmp_path / "incoming").iterdir()) == []
