"""Test deploy/Containerfile, built with buildah from a base of mmdebstrap, and deploy/compose.yaml."""

import importlib
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from safelight import settings
from support.guests.containers import LIMIT, Podman

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose.yaml"
BUILD_LIMIT = 600.0
BUILD_TOOLS = ("setuptools>=61", "wheel", "cffi", "pkgconfig")
"""The packages that pip needs to build pyvips."""


def services():
    return yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.mark.parametrize("name", services())
def test_compose_starts_each_service_with_settings_that_it_has(name):
    service = services()[name]
    module, *argv = service["command"]
    config = settings.load(
        importlib.import_module(f"{module}.__main__").Config, argv, section=name, program=name, environ={}
    )
    assert f":{config.port}/" in service["healthcheck"]["test"][-1]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["secrets"] == ["cluster-key"]
    assert not [place for place in service["tmpfs"] if ":" in place], "podman has no uid=, and ignores mode="
    kept = f"{name}:/data" in service.get("volumes", ())
    assert kept or config.data.startswith("/tmp/"), "under podman, other directories in memory belong to root"
    for published in service.get("ports", ()):
        assert published == f"127.0.0.1:{config.port}:{config.port}"


def test_the_cluster_key_beside_compose_is_not_committed():
    assert "/deploy/cluster-key" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to somebody else")
@pytest.mark.parametrize("document", ["deploy/compose.yaml", "docs/guide/deploying.md"])
def test_the_command_for_the_cluster_key_beside_compose_makes_one(tmp_path, document):
    (command,) = re.findall(r"^(?:#  |\$) (.*install -m 400 .*)$", (ROOT / document).read_text(), re.MULTILINE)
    sudo = tmp_path / "sudo"
    # As sudo does, so that the command gets none of the shell's other descriptors.
    sudo.write_text("#!/usr/bin/python3\nimport os, sys\nos.closerange(3, 256)\nos.execvp(sys.argv[1], sys.argv[1:])\n")
    sudo.chmod(0o755)
    (tmp_path / "deploy").mkdir()
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=path, check=True)
    key = tmp_path / "deploy/cluster-key"
    assert re.fullmatch("[0-9a-f]{64}\n", key.read_text())
    facts = key.stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (65534, 65534, 0o400)


COMPILED = """
import os.path, aiohttp.web, safelight.service
print(*(os.path.exists(module.__cached__) for module in (aiohttp.web, safelight.service)))
"""
"""A program that prints whether modules were compiled before they were imported."""


@pytest.mark.slow
def test_buildah_builds_an_image_that_serves(tmp_path):
    base, wheels, key = tmp_path / "base.tar", tmp_path / "wheels", tmp_path / "cluster-key"
    run("mmdebstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", base)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels)
    run(*pip, "--no-deps", "--require-hashes", "--requirement", ROOT / "locks/image.txt")
    run(*pip, *BUILD_TOOLS)
    key.write_text("a-container-of-a-test-is-asked-for-this\n")
    key.chmod(0o400)
    run("chown", "65534:65534", key)
    with Podman() as podman:
        podman.run("import", "--quiet", base, "localhost/base:1")
        run(
            *("buildah", "--root", podman.store, "--runroot", podman.state, "--storage-driver", "vfs"),
            *("build", "--quiet", "--pull=never", "--isolation", "chroot", "--network", "host"),
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--volume", f"{wheels}:/wheels:ro"),
            *("--build-arg", "BASE=localhost/base:1", "--build-arg", "PIP_OPTIONS=--no-index --find-links /wheels"),
            *("--tag", "localhost/safelight:0.1.0", "--file", ROOT / "deploy/Containerfile", ROOT),
        )
        command = services()["keyvaluestore"]
        mounts = ("--read-only", "--cap-drop", "all", "--volume", f"{key}:/run/secrets/cluster-key:ro")
        environment = ("--env", "SAFELIGHT_CLUSTER_KEY_FILE=/run/secrets/cluster-key")
        podman.start(
            "store", "localhost/safelight:0.1.0", "--network", "none", *mounts, *environment, then=command["command"]
        )
        probe = command["healthcheck"]["test"][1:]
        wait_until_succeeds(podman, "store", *probe)
        podman.run("exec", "store", "python3", "-m", "safelight", "store", "set", "a", "b")
        assert podman.run("exec", "store", "python3", "-m", "safelight", "store", "get", "a").strip() == "b"
        assert podman.run("exec", "store", "python3", "-c", COMPILED).split() == ["True", "True"]
        formats = podman.run("exec", "store", "python3", "-m", "safelight.engine")
        assert {"jpeg", "webp", "avif"} <= {one["format"] for one in json.loads(formats) if one["writes"]}
        worker = services()["worker"]
        memory = [word for place in worker["tmpfs"] for word in ("--tmpfs", place)]
        podman.start(
            *("worker", "localhost/safelight:0.1.0", "--network", "container:store", *mounts, *environment, *memory),
            then=worker["command"],
        )
        wait_until_succeeds(podman, "worker", "test", "-d", "/tmp/worker")
        podman.run("stop", "--time", "30", "worker", "store")
        assert podman.inspect("store")["State"]["ExitCode"] == 0


def wait_until_succeeds(podman, container, *words):
    """Wait until a program in a container that runs ends with status 0."""
    deadline = time.monotonic() + LIMIT
    while not podman.succeeds("exec", container, *words):
        assert podman.inspect(container)["State"]["Running"], podman.logs(container)
        assert time.monotonic() < deadline, podman.logs(container)


def run(*words):
    """Run a program to its end; fail with its output if it fails."""
    done = subprocess.run(
        [*map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
