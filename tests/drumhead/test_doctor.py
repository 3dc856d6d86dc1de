"""Test `drumhead doctor`: it reports what this host has, and all packages to install."""

import json
import sys

from drumhead import host
from drumhead.home import Home
from support.guests.composing import COMMAND, Drumhead


def test_doctor_finds_what_this_host_has(empty):
    told = json.loads(empty("doctor", "--json"))
    assert told["missing"] == [name for name in host.TOOLS if host.look_for(name) is None]
    assert told["writable"]
    listed = empty("doctor")
    assert all(name in listed for name in host.TOOLS)


def test_doctor_names_every_missing_package_at_once(empty, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    done = empty.run("doctor")
    assert done.returncode == 4, COMMAND
    (install,) = [line for line in done.stderr.splitlines() if "apt-get install" in line]
    assert {"qemu-system-x86", "squashfs-tools", "musl-tools", "gpgv"} <= set(install.split())


def test_doctor_says_that_the_store_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    done = Drumhead(Home(root=tmp_path / "file" / "home")).run("doctor")
    assert done.returncode == 4
    assert f"{tmp_path}/file/home cannot be written; set DRUMHEAD_HOME to a directory" in done.stderr
