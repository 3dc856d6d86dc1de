"""Test a host that several users and several commands share: modes of files, and commands at the same moment."""

import asyncio
import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from drumhead.blobs import replacing
from drumhead.cli import kernel
from drumhead.cli.package import build, remotes
from drumhead.errors import DrumheadError
from drumhead.fleet.records import Fleet
from drumhead.fleet.store import FleetStore
from drumhead.guest import find_guest
from drumhead.home import Home
from drumhead.image.export.export import export_image
from drumhead.machine.instances import Instances
from drumhead.machine.records import VolumeMount
from drumhead.machine.volume.volumes import create_volume, make_overlay, open_volumes

LINUX = find_guest("linux")
SIZE = 16 << 20
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path):
    return Home(root=tmp_path / "home")


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


async def test_others_reach_neither_the_sockets_nor_the_disks_of_machines(home, umask):  # noqa: ARG001 - it is set
    with Instances(home).lock("one"):
        assert mode(home.instances) == 0o700
    FleetStore(home, "one").write(Fleet(name="one", members={}))
    assert mode(home.fleets) == 0o700
    await create_volume(home, "one", SIZE, LINUX)
    assert (mode(home.volumes), mode(home.volumes / "one.raw")) == (0o700, 0o600)


def test_written_files_are_as_private_as_the_umask_says(tmp_path, umask):
    with replacing(tmp_path / "disk.img") as temporary:
        temporary.write_text("")
    assert mode(tmp_path / "disk.img") == 0o644 & ~umask


async def test_one_of_two_commands_creates_a_volume(home):
    wanted = [create_volume(home, "one", SIZE, LINUX) for _ in range(2)]
    first, second = await asyncio.gather(*wanted, return_exceptions=True)
    (refused,) = [one for one in (first, second) if one is not None]
    assert isinstance(refused, DrumheadError) and "the volume one already exists" in refused.message


async def test_a_volume_that_another_command_has_just_created_is_kept(home, monkeypatch):
    """The other machine may already have written to it."""
    await create_volume(home, "one", SIZE, LINUX)
    before = (home.volumes / "one.raw").stat().st_ino
    answers = iter([False])  # at the first look it did not exist yet
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: next(answers, exists(path)))
    await open_volumes(home, (VolumeMount(source="one", path="/data", size=SIZE),), LINUX)
    assert (home.volumes / "one.raw").stat().st_ino == before


async def test_a_disk_of_its_own_is_made_while_the_machine_is_locked(home):
    with Instances(home).lock("one"):
        async with asyncio.timeout(60):
            await make_overlay(home.instances / "one", SIZE, LINUX)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "command"),
    [
        (build, "build_package", lambda: build.build_command("python")),
        (build, "package_project", lambda: build.build_command(project=ROOT)),
        (remotes, "pull_package", lambda: remotes.pull_command("python")),
        (kernel, "add_kernel", lambda: kernel.add_command("loader.elf")),
    ],
)
async def test_blobs_stay_until_a_package_has_its_record(home, monkeypatch, module, name, command):
    class TriedError(Exception):
        pass

    async def store(*_arguments, **_flags):
        with (home.root / "lock").open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as a command that removes blobs does
        raise TriedError

    monkeypatch.setenv("DRUMHEAD_HOME", str(home.root))
    monkeypatch.setattr(module, name, store)
    with pytest.raises(TriedError):
        await command()


@pytest.mark.slow
def test_remotes_added_at_the_same_moment_are_all_there(empty):
    adding = [
        subprocess.Popen([*empty.words, "remote", "add", f"r{number}", "https://r.test"], env=environment(empty))
        for number in range(4)
    ]
    assert [process.wait(timeout=60) for process in adding] == [0] * 4
    assert {remote["name"] for remote in empty.json("remote", "list")} == {f"r{number}" for number in range(4)}


def environment(drumhead):
    return {**os.environ, "DRUMHEAD_HOME": str(drumhead.home.root)}


def test_an_export_creates_no_directory(home, tmp_path):
    with pytest.raises(DrumheadError, match=f"there is no directory {tmp_path}/typo; create it first"):
        export_image(home, "any", "raw", tmp_path / "typo" / "disk.raw")
    assert not (tmp_path / "typo").exists()
