"""What a machine flushed to its volume is there after the machine was killed, on every guest, under writing threads."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from drumhead.home import Home
from drumhead.machine.instances import Instances
from support import osv
from support.machines import LIMIT, find, wait_gone, wait_until

pytestmark = pytest.mark.slow
WRITER = Path(__file__).with_name("writer.py")
ENOUGH = 25
"""Reports of something flushed after which a machine is killed."""
KILLS = 3


@pytest.fixture(scope="module", params=["linux", "osv"])
def writer(request, drumhead, tmp_path_factory):
    """An image of a program that checks what its volume holds, and then writes without an end."""
    if request.param == "osv":
        files = osv.real_files()
        if not any(file.suffix == ".so" for file in files):
            pytest.skip("not run: the kernel of DRUMHEAD_OSV_KERNEL has no module for volumes (libext.so) beside it")
        drumhead("kernel", "add", *files)
    root = tmp_path_factory.mktemp("writer")
    (root / "meta").mkdir()
    (root / "meta/package.yaml").write_text("name: writer\ntitle: Writer\nauthor: a\nrequire: [python]\n")
    (root / "meta/run.yaml").write_text("runtime: python\nconfig_set:\n  write: {main: /writer.py}\n")
    shutil.copy(WRITER, root / "writer.py")
    drumhead("package", "compose", "-C", root, "--guest", request.param, "writer")
    name = f"writer-{request.param}"
    yield (
        name,
        lambda: drumhead(
            "run", "--detach", "--guest", request.param, "--volume", f"{name}:/data:256M", "-m", "192M", "writer", name
        ),
    )
    drumhead("delete", "--force", name)
    (drumhead.home.volumes / f"{name}.raw").unlink()


async def test_what_was_flushed_outlives_a_kill(drumhead, writer):
    name, run = writer
    flushed, rows = set(), 0
    for _ in range(KILLS):
        await asyncio.to_thread(run)
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
    """The whole lines that the program wrote since its start, as words."""
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
    """What the program found at its start; it must have found it whole."""
    assert ["CHECKED", "0"] in lines
    assert ["INTEGRITY", "ok"] in lines or not any(word == "ROW" for word, _ in lines)
    return {what for word, what in lines if word == "HAVE"}, {int(what) for word, what in lines if word == "ROW"}
