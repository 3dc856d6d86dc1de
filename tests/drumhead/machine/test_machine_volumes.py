"""Test volumes on the host: those not unmounted are detected and repaired, and unsuitable ones are refused."""

import random
import shutil
import struct
import subprocess

import pytest

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.home import Home
from drumhead.machine.records import Instance, VolumeMount
from drumhead.machine.volume.ext4 import find_holes, was_not_unmounted
from drumhead.machine.volume.volumes import fill_holes, make_disk, open_volumes, refuse_shared_disks, repair_disk
from support.guests.disks import debugfs, is_whole, sparse
from support.guests.stubs import launched

SUPERBLOCK, STATE, FREE_BLOCKS, INCOMPATIBLE = 1024, 0x3A, 0x0C, 0x60


def header(disk):
    said = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout
    return dict(line.split(":", 1) for line in said.splitlines() if ":" in line)


def features(disk):
    return header(disk)["Filesystem features"].split()


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
    """Return a disk whose superblock has no checksum, so that a test can change it."""
    path = tmp_path / "plain.raw"
    await make_disk(path, 64 << 20, find_guest("osv").volume_options)
    return path


def test_a_new_disk_is_whole_and_takes_little_room(disk):
    assert not was_not_unmounted(disk)
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
    assert was_not_unmounted(disk)
    repair_disk(disk)
    assert not was_not_unmounted(disk)
    assert is_whole(disk)


def test_a_repair_that_may_lose_files_is_told_and_others_are_not(plain_disk, tmp_path, caplog):
    (tmp_path / "kept").write_text("kept")
    debugfs(plain_disk, f"write {tmp_path / 'kept'} kept")
    for damage in ("stat kept", "unlink kept"):  # nothing, and a file without a name
        assert not caplog.records
        debugfs(plain_disk, damage)
        change(plain_disk, STATE, "<H", 2)
        repair_disk(plain_disk)
    assert "was damaged. e2fsck has repaired it; files may be missing or in lost+found" in caplog.text


async def test_a_volume_that_is_no_disk_any_more_is_not_to_be_made_anew_at_once(tmp_path):
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/one.raw").write_bytes(bytes(4096))
    with pytest.raises(DrumheadError, match=r"`e2fsck .*one.raw` may find it again; otherwise put a copy of the disk"):
        await open_volumes(Home(root=tmp_path), (VolumeMount(source="one", path="/data"),), find_guest("linux"))


def test_what_is_no_ext4_or_not_cut_off_is_left_alone(tmp_path, disk):
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(4096))
    tiny = tmp_path / "tiny.raw"
    tiny.write_bytes(b"")
    before = disk.read_bytes()
    for path in (other, tiny, disk):
        repair_disk(path)
        fill_holes(path)
    assert disk.read_bytes() == before
    assert other.read_bytes() == bytes(4096)


@pytest.mark.parametrize("guest", ["linux", "osv"])
async def test_a_volume_grows_to_a_larger_size_and_keeps_its_files(tmp_path, guest):
    home, path, kept = Home(root=tmp_path), tmp_path / "volumes/one.raw", tmp_path / "kept"
    kept.write_bytes(random.Random(0).randbytes(3 << 20))

    async def opened(**about):
        await open_volumes(home, (VolumeMount(source="one", path="/data", **about),), find_guest(guest))
        return int(header(path)["Block count"]) * int(header(path)["Block size"])

    assert await opened(size=16 << 20) == 16 << 20
    had = features(path)
    debugfs(path, f"write {kept} kept")
    assert await opened() == await opened(size=8 << 20) == 16 << 20, "no other size is asked for, or a smaller one"
    assert await opened(size=100 << 20) == 100 << 20 == path.stat().st_size
    assert is_whole(path) and features(path) == had
    debugfs(path, f"dump kept {tmp_path / 'found'}")
    assert (tmp_path / "found").read_bytes() == kept.read_bytes()


def test_a_disk_that_cannot_be_mended_is_refused_with_a_reason(tmp_path, plain_disk):
    shutil.copy(plain_disk, tmp_path / "bad.raw")
    change(tmp_path / "bad.raw", STATE, "<H", 2)
    change(tmp_path / "bad.raw", INCOMPATIBLE, "<I", 0x80000000)
    with pytest.raises(DrumheadError, match="e2fsck") as error:
        repair_disk(tmp_path / "bad.raw")
    assert error.value.code is ErrorCode.HOST_TOOL


SHAPES = [
    (1, ()),
    (12, (0, 11)),
    (13, range(12)),
    (14, (13,)),
    (1037, (0, 12, 500, 1035)),
    (1040, range(1040)),
    (3000, (0, 2999)),
    (5000, ()),
]
"""Files as their size in blocks and the allocated blocks, which cross the limits of direct and indirect pointers."""


@pytest.mark.parametrize(("blocks", "there"), SHAPES)
def test_holes_are_found_and_filled_with_zeros(tmp_path, plain_disk, blocks, there):
    (tmp_path / "dirt").write_bytes(b"dirt" * 4_000_000)
    debugfs(plain_disk, f"write {tmp_path / 'dirt'} dirt")
    debugfs(plain_disk, "rm dirt")
    file = sparse(tmp_path / "file", blocks, there)
    debugfs(plain_disk, f"write {file} file")
    found, free = find_holes(plain_disk)
    assert [(one.blocks, one.missing) for one in found] == (
        [(blocks, blocks - len(there))] if len(there) < blocks else []
    )
    assert free > blocks
    fill_holes(plain_disk)
    assert find_holes(plain_disk)[0] == []
    assert is_whole(plain_disk)
    debugfs(plain_disk, f"dump file {tmp_path / 'back'}")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_holes_that_no_room_is_left_for_are_refused_and_nothing_is_changed(tmp_path, plain_disk):
    file = sparse(tmp_path / "file", 30_000, (0,))
    debugfs(plain_disk, f"write {file} file")
    before = plain_disk.read_bytes()
    with pytest.raises(DrumheadError, match="not enough space to fill") as error:
        fill_holes(plain_disk)
    assert error.value.code is ErrorCode.UNSUPPORTED
    assert plain_disk.read_bytes() == before


async def test_files_of_extents_may_have_holes(tmp_path):
    path = tmp_path / "linux.raw"
    await make_disk(path, 64 << 20, find_guest("linux").volume_options)
    debugfs(path, f"write {sparse(tmp_path / 'file', 3000, (0, 2999))} file")
    before = path.read_bytes()
    fill_holes(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("guest", ["linux", "osv"])
async def test_holes_are_filled_for_the_guest_that_cannot_have_them(tmp_path, guest):
    home = Home(root=tmp_path / "home")
    volumes = (VolumeMount(source="one", path="/data", size=64 << 20),)
    home.volumes.mkdir(parents=True)
    disk = home.volumes / "one.raw"
    await make_disk(disk, 64 << 20, find_guest("osv").volume_options)
    debugfs(disk, f"write {sparse(tmp_path / 'file', 100, (99,))} file")
    await open_volumes(home, volumes, find_guest(guest))
    assert len(find_holes(disk)[0]) == (guest == "linux")


def test_every_group_of_a_large_disk_is_looked_at(tmp_path):
    path = tmp_path / "disk.raw"
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-N", "64", "-g", "1024", "-b", "1024", "-O", "^extent,^64bit", path, "20M"],
        check=True,
    )
    file = sparse(tmp_path / "file", 3, (0,), 1024)
    debugfs(path, *(f"write {file} file{number}" for number in range(40)))
    found, _ = find_holes(path)
    assert {(one.blocks, one.missing) for one in found} == {(3, 2)}
    assert len(found) == 40


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        *[(0x18, "<I", value) for value in (7, 64, 0xFFFFFFFF)],  # the size of blocks
        *[(0x28, "<I", value) for value in (0, 7, 8 * 4096 + 1, 0xFFFFFFFF)],  # inodes in a group
        *[(0x58, "<H", value) for value in (0, 64, 200, 8192, 0xFFFF)],  # the size of inodes
        *[(0x00, "<I", value) for value in (0, 1, 0xFFFFFFFF)],  # all inodes
        *[(0x04, "<I", value) for value in (64 << 8 | 1, 0xFFFFFFFF)],  # all blocks
        (0x14, "<I", 0xFFFFFFFF),  # the first block
        (INCOMPATIBLE, "<I", 0x82),  # descriptors of 64 bytes, whose size is 0
    ],
)
async def test_a_superblock_that_cannot_be_true_is_none(plain_disk, at, form, value):
    change(plain_disk, at, form, value)
    assert find_holes(plain_disk) == ([], 0)
    volume = VolumeMount(source=str(plain_disk), path="/data")
    with pytest.raises(DrumheadError, match="has no ext4 file system"):
        await open_volumes(Home(root=plain_disk), (volume,), find_guest("osv"))


def test_a_disk_of_the_oldest_format_is_read(tmp_path):
    path = tmp_path / "old.raw"
    subprocess.run(["mke2fs", "-q", "-t", "ext2", "-I", "128", "-O", "none", path, "20M"], check=True)
    change(path, 0x4C, "<I", 0)  # the revision, which mke2fs no longer sets (-r) since 1.47.2
    change(path, 0x58, "<H", 0)
    debugfs(path, f"write {sparse(tmp_path / 'file', 3, (0,), 1024)} file")
    assert [(one.inode, one.blocks, one.missing) for one in find_holes(path)[0]] == [(12, 3, 2)]


def test_whatever_bytes_a_disk_holds_there_is_a_sentence(plain_disk, tmp_path):
    debugfs(plain_disk, f"write {sparse(tmp_path / 'file', 2000, (0, 1999))} file")
    whole, chance = plain_disk.read_bytes()[: 1 << 20], random.Random(7)
    (table,) = struct.unpack_from("<I", whole, 4096 + 8)
    inode = table * 4096 + 11 * 256
    read = [*range(SUPERBLOCK, SUPERBLOCK + 0x160), *range(4096, 4096 + 32), *range(inode, inode + 128)]
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.choice(read)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        with plain_disk.open("r+b") as disk:
            disk.write(damaged)
        try:
            find_holes(plain_disk)
        except DrumheadError as error:
            assert "is damaged; `e2fsck -f" in error.message
            refused += 1
    assert refused


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


def qcow2(path, *options):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "64M"], check=True)
    return path


async def test_what_a_guest_writes_never_decides_the_format_of_its_disk(tmp_path):
    """Keep a raw disk raw: otherwise its header could make QEMU read and write any file of the host."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host" * 1000)
    home, linux = Home(root=tmp_path / "home"), find_guest("linux")
    volume = VolumeMount(source="data", path="/data")
    ((drive,), _) = await open_volumes(home, (volume,), linux)
    header = qcow2(tmp_path / "evil", "-F", "raw", "-b", str(secret)).read_bytes()
    with drive.path.open("r+b") as disk:  # as the machine would: its disk starts at the first byte of the file
        disk.write(header[:1024])
    with pytest.raises(DrumheadError, match="a guest may have written") as error:
        await open_volumes(home, (volume,), linux)
    assert error.value.code is ErrorCode.USAGE
    assert is_whole(drive.path)


async def test_a_qcow2_disk_is_one_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    disks = {
        "refers to other files": qcow2(tmp_path / "backing.qcow2", "-F", "raw", "-b", str(secret)),
        "refers to": qcow2(tmp_path / "data.qcow2", "-o", f"data_file={tmp_path / 'outside'}"),
        "is not a qcow2 disk": tmp_path / "raw.qcow2",
    }
    (tmp_path / "raw.qcow2").write_bytes(bytes(1 << 20))
    home, linux = Home(root=tmp_path / "home"), find_guest("linux")
    for said, path in disks.items():
        with pytest.raises(DrumheadError, match=said):
            await open_volumes(home, (VolumeMount(source=str(path), path="/data"),), linux)
    for version in ("0.10", "1.1"):
        path = qcow2(tmp_path / f"{version}.qcow2", "-o", f"compat={version}")
        ((drive,), _) = await open_volumes(home, (VolumeMount(source=str(path), path="/data"),), linux)
        assert drive.format == "qcow2"


@pytest.fixture
def used(plain_disk):
    """Return a disk that was not unmounted, because QEMU is running with it."""
    change(plain_disk, STATE, "<H", 0)
    words = ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-monitor", "stdio", "-accel", "tcg"]
    words += ["-drive", f"file={plain_disk},format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        assert qemu.stdout.read(4) == b"QEMU"
        yield plain_disk
        qemu.kill()


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_disk_that_a_machine_of_another_home_uses_is_not_repaired(tmp_path, used, readonly):
    (tmp_path / "link.raw").symlink_to(used)
    volume = VolumeMount(source=str(tmp_path / "link.raw"), path="/data", readonly=readonly)
    before = used.read_bytes()
    with pytest.raises(DrumheadError, match="another machine or command uses the disk") as refused:
        await open_volumes(Home(root=tmp_path), (volume,), find_guest("linux"))
    assert refused.value.code is ErrorCode.CONFLICT
    assert used.read_bytes() == before


async def test_a_disk_that_was_not_unmounted_is_repaired_before_it_is_mounted_read_only(tmp_path, plain_disk):
    change(plain_disk, STATE, "<H", 0)
    volume = VolumeMount(source=str(plain_disk), path="/data", readonly=True)
    await open_volumes(Home(root=tmp_path), (volume,), find_guest("linux"))
    assert not was_not_unmounted(plain_disk)


@pytest.mark.parametrize("path", ["link.raw", "below/../plain.raw"])
def test_one_disk_has_one_writer_by_whatever_path(tmp_path, plain_disk, path):
    (tmp_path / "link.raw").symlink_to(plain_disk)
    (tmp_path / "below").mkdir()
    mine, theirs = (VolumeMount(source=str(one), path="/data") for one in (tmp_path / path, plain_disk))
    launch = launched("writer", volumes=(theirs,))
    with pytest.raises(DrumheadError, match="in use by writer"):
        refuse_shared_disks(Home(root=tmp_path), (mine,), "other", [Instance(launch=launch, state="running", pid=1)])


async def test_a_directory_or_a_disk_without_ext4_is_no_volume(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "text").write_text("x" * 4096)
    (tmp_path / "nothing").write_bytes(b"")
    for name, reason in (
        ("files", "is a directory, and a volume is a disk; a name without a slash creates one (files:/data)"),
        ("text", "has no ext4 file system"),
        ("nothing", "has no ext4 file system"),
    ):
        volume = VolumeMount(source=f"{tmp_path}/{name}", path="/data")
        with pytest.raises(DrumheadError) as refused:
            await open_volumes(Home(root=tmp_path / "home"), (volume,), find_guest("linux"))
        assert refused.value.code is ErrorCode.USAGE
        assert reason in refused.value.message


def test_a_fleet_s_volume_with_a_long_name_is_deleted_and_nothing_elsewhere(empty):
    volume, other = empty.home.volumes / f"{'f' * 32}-{'v' * 63}.raw", empty.home.root / "other.raw"
    volume.parent.mkdir(parents=True)
    for file in (volume, other):
        file.touch()
    assert "there is no volume '../other'" in empty.refused("volume", "delete", "../other", status=3)
    empty("volume", "delete", volume.stem)
    assert [file for file in (volume, other) if file.exists()] == [other]
