"""Test volumes on every guest: programs can use files as usual, and flushed data survives a killed machine."""

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from drumhead.guest import find_guest
from drumhead.home import Home
from drumhead.machine.instances import Instances
from drumhead.machine.volume.volumes import REPAIRED, make_disk
from support.guests import osv
from support.guests.disks import debugfs, is_whole, sparse
from support.guests.machines import LIMIT, find, wait_gone, wait_until

pytestmark = pytest.mark.slow
PROGRAMS = Path(__file__).parent
ENOUGH = 25
"""How many reports of flushed data a machine makes before it is killed."""
KILLS = 3
HABITS = 14
LACKING = {"linux": set(), "osv": {"a_removed_file_can_still_be_read_by_who_has_it_open"}}
"""The tests of ``habits.py`` that fail on a guest, as docs/internals/osv.md documents."""


@pytest.fixture(scope="module", params=["linux", "osv"])
def guest(request, drumhead, tmp_path_factory):
    """Return a guest with an image `programs`, whose programs test a volume or write to it without end."""
    if request.param == "osv":
        files = osv.real_files()
        if not any(file.suffix == ".so" for file in files):
            pytest.skip("not run: the kernel of DRUMHEAD_OSV_KERNEL has no module for volumes (libext.so) beside it")
        drumhead("kernel", "add", *files)
    root = tmp_path_factory.mktemp("programs")
    (root / "meta").mkdir()
    (root / "meta/package.yaml").write_text("name: programs\ntitle: Programs\nauthor: a\nrequire: [python]\n")
    sets = "write: {main: /writer.py}\n  try: {main: /habits.py}\n"
    (root / "meta/run.yaml").write_text(f"runtime: python\nconfig_set:\n  {sets}config_set_default: write\n")
    for name in ("writer.py", "habits.py"):
        shutil.copy(PROGRAMS / name, root / name)
    drumhead("package", "compose", "-C", root, "--guest", request.param, "programs")
    if request.param == "linux":  # its machines resume; test_machine_life.py pulls the plug of one that boots
        drumhead("snapshot", "create", "programs", "-m", "192M")
    return request.param


@pytest.fixture
def machine(drumhead, guest):
    """Yield a machine's name and a function that starts it with its volume; delete both at the end."""
    name = f"volume-{guest}"
    words = ("--guest", guest, "--volume", f"{name}:/data:128M", "-m", "192M", "-i", "programs")
    yield name, lambda *more: drumhead("run", *words, *more, name)
    drumhead("delete", "--force", name)
    (drumhead.home.volumes / f"{name}.raw").unlink()


def test_volumes_do_what_programs_expect(drumhead, guest, machine):
    name, run = machine
    lines = run("--run", "try").splitlines()
    wrong = {line.partition(":")[0]: line for line in lines if not line.startswith("ok ")}
    assert len(lines) == HABITS
    assert set(wrong) == LACKING[guest], wrong
    volume = drumhead.home.volumes / f"{name}.raw"
    # e2fsck mends this without asking: OSv miscounts the directories in a directory when one moves.
    checked = subprocess.run(["e2fsck", "-fp", volume], capture_output=True, text=True, check=False)
    assert checked.returncode in REPAIRED, checked.stdout


WRITE_INTO_A_HOLE = (
    "import os; file = open('/data/file', 'r+b'); file.seek(50 * 4096 + 100); file.write(b'here' * 2000);"
    "file.flush(); os.fsync(file.fileno())"
)


async def test_what_is_written_into_a_hole_goes_where_it_belongs(drumhead, guest, machine, tmp_path):
    """Write into a hole, as a power failure may leave it: OSv by itself would overwrite the superblock."""
    name, run = machine
    volume = drumhead.home.volumes / f"{name}.raw"
    volume.parent.mkdir(exist_ok=True)
    await make_disk(volume, 64 << 20, find_guest("osv").volume_options)
    file = sparse(tmp_path / "file", 100, (0, 99))
    debugfs(volume, f"write {file} file")
    await asyncio.to_thread(run, "-e", f'/usr/bin/python3 -c "{WRITE_INTO_A_HOLE}"')
    assert is_whole(volume)
    debugfs(volume, f"dump file {tmp_path / 'back'}")
    expected = bytearray(file.read_bytes())
    expected[50 * 4096 + 100 : 50 * 4096 + 8100] = b"here" * 2000
    assert (tmp_path / "back").read_bytes() == expected


async def test_what_was_flushed_outlives_a_kill(drumhead, machine):
    name, run = machine
    flushed, rows = set(), 0
    for _ in range(KILLS):
        await asyncio.to_thread(run, "--detach")
        lines = await written(drumhead.home, name, lambda lines: reports(lines) >= ENOUGH)
        pid = find(drumhead, name)["pid"]
        os.kill(pid, signal.SIGKILL)
        await wait_gone(pid)
        found_files, found_rows = state(lines)
        assert flushed <= found_files
        assert set(range(1, rows + 1)) <= found_rows
        for word, what in read_lines(drumhead.home, name):
            if word == "FILE":
                flushed.add(what)
            elif word == "COMMIT":
                rows = int(what)
    assert len(flushed) > KILLS
    assert rows > KILLS


def read_lines(home, name):
    """Return the complete lines that the program has written since its start, split into words."""
    log = Instances(home).directory(name) / "log"
    text = log.read_text(errors="replace") if log.exists() else ""
    return [words for line in text.split("\n")[:-1] if len(words := line.split()) == 2]


async def written(home: Home, name, ready):
    def enough():
        lines = read_lines(home, name)
        return lines if ready(lines) else None

    async with asyncio.timeout(LIMIT):
        return await wait_until(Instances(home).directory(name), enough)


def reports(lines):
    return sum(word in {"FILE", "COMMIT"} for word, _ in lines)


def state(lines):
    """Return what the program found on the volume at its start; assert that it found no damage."""
    assert ["CHECKED", "0"] in lines
    assert ["INTEGRITY", "ok"] in lines or not any(word == "ROW" for word, _ in lines)
    return {what for word, what in lines if word == "HAVE"}, {int(what) for word, what in lines if word == "ROW"}
