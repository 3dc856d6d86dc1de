"""Provide fixtures for drumhead's tests: the command, a store of real packages, projects, and servers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from aiohttp import web

from drumhead.home import Home
from drumhead.python.lock import find_uv
from support.guests.composing import Drumhead, write_files
from support.programs.ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests that need packages as slow: building these from Debian's takes a minute before the first test."""
    for item in items:
        if "drumhead" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def drumhead(tmp_path_factory):
    """Return the command with a store of the kernel, the shell and Python, built from Debian's packages once per run.

    DRUMHEAD_TEST_HOME names a directory that is kept and used again, which saves a minute while developing.
    """
    kept = os.environ.get("DRUMHEAD_TEST_HOME")
    home = Home(root=Path(kept) if kept else tmp_path_factory.mktemp("drumhead-home"))
    if "PYTEST_XDIST_WORKER" in os.environ and not kept:
        # The first process builds the packages; the others copy them.
        built = Home(root=tmp_path_factory.getbasetemp().parent / "drumhead-packages")
        with built.root.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            command = _build(Drumhead(built))
            command.package("node")
            # Several test files start this image.
            words = ("package", "compose", "-C", ROOT, "--guest", "linux", "safelight")
            done = command.run(*words, pack_fast=True)
            assert done.returncode == 0, done.stderr
        shutil.copytree(built.root, home.root, dirs_exist_ok=True, symlinks=True)
    return _build(Drumhead(home))


def _build(command):
    for name in ("linux", "cli", "ca-certificates", "python"):
        command.package(name)
    return command


@pytest.fixture
def empty(tmp_path):
    """Return the command with an empty store."""
    return Drumhead(Home(root=tmp_path / "empty-home"))


@pytest.fixture
def project(tmp_path):
    """Return the directory of a small Python project with two config sets."""
    return write_files(
        tmp_path / "project",
        {
            "meta/package.yaml": "name: small\ntitle: Small\nauthor: somebody\nversion: 1.0\nrequire:\n- python\n",
            "meta/run.yaml": (
                "runtime: python\nconfig_set:\n  hello:\n    main: /main.py\n    args: [world]\n"
                "  module:\n    module: part.one\n    env:\n      DEPTH: 3\nconfig_set_default: hello\n"
            ),
            "main.py": "import sys\nprint('hello', *sys.argv[1:])\n",
            "part/__init__.py": "",
            "part/one.py": "print('one')\n",
            "part/two.py": "print('two')\n",
            "bin/tool.sh": "#!/bin/sh\necho tool\n",
            "lib/notes.txt": "a directory called lib, as many projects have\n",
        },
    )


@pytest.fixture
async def serve():
    """Return a function that serves a directory over HTTP on a free port and returns its URL."""
    runners = []

    async def start(directory, *, change=None):
        async def handle(request):
            file = directory / request.match_info["path"]
            if not file.is_file():
                raise web.HTTPNotFound
            body = file.read_bytes()
            return web.Response(body=change(request.path, body) if change else body)

        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def registry_settings():
    """Return more settings of the registry, in YAML."""
    return ""


@pytest.fixture
async def registry(tmp_path, registry_settings):
    """Run Debian's docker-registry on a free port; yield its address."""
    address = f"127.0.0.1:{free_port()}"
    config = (
        f"version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: {address}}}\n{registry_settings}"
    )
    write_files(tmp_path, {"registry.yml": config})
    words = ["docker-registry", "serve", str(tmp_path / "registry.yml")]
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        while b"listening on" not in (line := await process.stderr.readline()):
            assert line, "the registry ended"
    rest = asyncio.create_task(process.stderr.read())
    yield address
    process.terminate()
    await process.wait()
    await rest


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """Return a requirements file with one requirement and its hashes."""
    directory = write_files(tmp_path_factory.mktemp("lock"), {"in.txt": "idna==3.10\n"})
    command = [
        find_uv(),
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--no-header",
        "-o",
        directory / "out",
        directory / "in.txt",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return (directory / "out").read_text()
