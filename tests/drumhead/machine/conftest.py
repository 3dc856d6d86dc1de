"""Provide machines that several tests share; each boots once, because booting takes seconds."""

from __future__ import annotations

import asyncio

import pytest

from drumhead.machine.instances import Instances
from support.guests.machines import find, wait_log
from support.guests.server import SERVER


@pytest.fixture(scope="session")
def machine_image(drumhead, tmp_path_factory):
    """Return the name of an image with Python, a shell and a small server, whose machines keep their data on a disk."""
    root = tmp_path_factory.mktemp("machine-project")
    (root / "meta").mkdir()
    (root / "meta/package.yaml").write_text("name: m\ntitle: M\nauthor: a\nrequire: [python, cli]\n")
    (root / "meta/run.yaml").write_text(
        "runtime: python\nconfig_set:\n  serve:\n    main: /server.py\n    args: [one, 'two words']\n"
        "    env:\n      KEPT: from the set\n      GIVEN: from the set\n"
        "  prepare:\n    main: /say.py\n    args: [prepared]\n  go:\n    main: /say.py\n    args: [gone]\n"
        "  broken:\n    main: /say.py\n    args: [broken, 3]\nconfig_set_default: serve\n"
    )
    (root / "server.py").write_text(SERVER)
    (root / "say.py").write_text("import sys\nprint(sys.argv[1])\nsys.exit(int((sys.argv[2:] or [0])[0]))\n")
    (root / "bin").mkdir()
    (root / "bin/strange").write_text("#!/usr/bin/perl\nprint 1\n")
    (root / "bin/strange").chmod(0o755)
    drumhead("package", "compose", "-C", root, "--size", "64M", "test/machine")
    return "test/machine"


@pytest.fixture(scope="session")
def instances(drumhead):
    return Instances(drumhead.home)


@pytest.fixture(scope="session")
def server(drumhead, machine_image):
    """Run the server in a detached machine on the private network `shared`; return its ``instances --json``."""
    drumhead(
        *["run", "-d", "-i", machine_image, "server", "-m", "160M", "-c", "2", "--private-network", "shared"],
        *["--mac", "A2:13:15:00:80:01", "-f", "0:8000", "-f", "0:9000/udp", "-f", "0:7000"],
        *["--volume", "first:/data:32M"],
        *["--env", "GIVEN=by hand", "--env", 'ODD=a "b" \\ ü\n\tx', "--env", "EMPTY="],
    )
    asyncio.run(wait_log(drumhead.home, "server", "serving"))
    yield find(drumhead, "server")
    drumhead("delete", "--force", "server")
