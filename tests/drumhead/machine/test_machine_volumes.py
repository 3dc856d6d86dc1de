"""Volumes on the host: told whether they were unmounted, mended when not, refused where a guest cannot have them."""

import shutil
import struct
import subprocess

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.home import Home
from drumhead.machine.records import VolumeMount
from drumhead.machine.volumes import is_ext4_cut_off, make_disk, mend_disk, open_volumes

SUPERBLOCK, STATE, FREE_BLOCKS, INCOMPATIBLE = 1024, 0x3A, 0x0C, 0x60


def features(disk):
    said = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout
    return next(line for line in said.splitlines() if line.startswith("Filesystem features")).split()[2:]


def is_whole(disk):
    return subprocess.run(["e2fsck", "-f", "-n", disk], capture_output=True, check=False).returncode == 0


def change(disk, at, form, value):
    with disk.open("r+b") as file:
        file.seek(SUPERBLOCK + at)
        file.write(struct.pack(form, value))


@pytest.fixture(params=["linux", "osv"])
async def disk(request, tmp_path):
    path = tmp_path / "disk.raw"
    await make_disk(path, 64 << 20, find_guest(request.param).volume_options)
    return path


@pytest.fixture
async def plain_disk(tmp_path):
    """One whose superblock has no checksum, so that a test can change it."""
    path = tmp_path / "plain.raw"
    await make_disk(path, 64 << 20, find_guest("osv").volume_options)
    return path


def test_a_new_disk_is_whole_and_takes_little_room(disk):
    assert not is_ext4_cut_off(disk)
    assert is_whole(disk)
    assert disk.stat().st_blocks * 512 < 8 << 20


async def test_on_osv_nothing_that_was_written_is_moved(tmp_path):
    path = tmp_path / "disk.raw"
    await make_disk(path, 64 << 20, find_guest("osv").volume_options)
    assert {"extent", "dir_index", "metadata_csum"}.isdisjoint(features(path))
    assert "has_journal" in features(path)


@pytest.mark.parametrize("state", [0, 2, 3])
def test_a_disk_that_was_cut_off_is_mended(plain_disk, state):
    disk = plain_disk
    change(disk, STATE, "<H", state)
    change(disk, FREE_BLOCKS, "<I", 7)
    assert is_ext4_cut_off(disk)
    mend_disk(disk)
    assert not is_ext4_cut_off(disk)
    assert is_whole(disk)


def test_what_is_no_ext4_or_not_cut_off_is_left_alone(tmp_path, disk):
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(4096))
    tiny = tmp_path / "tiny.raw"
    tiny.write_bytes(b"")
    before = disk.read_bytes()
    for path in (other, tiny, disk):
        mend_disk(path)
    assert disk.read_bytes() == before
    assert other.read_bytes() == bytes(4096)


def test_a_disk_that_cannot_be_mended_is_refused_with_a_reason(tmp_path, plain_disk):
    shutil.copy(plain_disk, tmp_path / "bad.raw")
    change(tmp_path / "bad.raw", STATE, "<H", 2)
    change(tmp_path / "bad.raw", INCOMPATIBLE, "<I", 0x80000000)
    with pytest.raises(DrumheadError, match="e2fsck") as error:
        mend_disk(tmp_path / "bad.raw")
    assert error.value.code is ErrorCode.HOST_TOOL


@pytest.mark.parametrize(
    "volumes",
    [
        (VolumeMount(source="one", path="/data"), VolumeMount(source="two", path="/mnt")),
        (VolumeMount(source="one", path="/data", readonly=True),),
    ],
)
async def test_volumes_that_osv_cannot_have_are_refused(tmp_path, volumes):
    with pytest.raises(DrumheadError, match="OSv") as error:
        await open_volumes(Home(root=tmp_path), volumes, find_guest("osv"))
    assert error.value.code is ErrorCode.UNSUPPORTED
    await open_volumes(Home(root=tmp_path), volumes, find_guest("linux"))
