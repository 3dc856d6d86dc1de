"""Run containers with Debian's podman and runc; podman keeps all of its files in a temporary directory."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

LIMIT = 300.0
"""The time limit of one podman command in seconds, on a busy machine."""


class Podman:
    """Run podman with its own store. Use it as a context manager, which removes the containers and the store."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="podman-"))  # podman refuses paths of more than 50 bytes
        self.store, self.state = self._root / "store", self._root / "state"
        self._words = [
            *("podman", "--root", str(self.store), "--runroot", str(self.state), "--storage-driver", "vfs"),
            *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.run("kill", "--all", check=False)
        self.run("rm", "--all", "--force", "--volumes", "--time", "0", check=False)
        shutil.rmtree(self._root, ignore_errors=True)

    def run(self, *arguments, check=True):
        """Run a podman command; return its standard output."""
        words = [*self._words, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def succeeds(self, *arguments):
        """Return whether a podman command ends with status 0."""
        words = [*self._words, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, timeout=LIMIT, check=False).returncode == 0

    def load(self, layout: Path, reference: str, name: str) -> None:
        """Load an image from an OCI layout in Docker's format, which keeps the health check."""
        there = f"containers-storage:[vfs@{self.store}+{self.state}]{name}"
        words = ["skopeo", "copy", "--quiet", "--format", "v2s2", f"oci:{layout}:{reference}", there]
        subprocess.run(words, capture_output=True, timeout=LIMIT, check=True)

    @property
    def shell(self) -> str:
        """Return the podman command with the options of its store, for a shell."""
        return shlex.join(self._words)

    def start(self, name: str, image: str, *options, then=()) -> None:
        """Start a container in the background, with resource limits that need no privileges."""
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
        self.run("run", "--detach", "--name", name, "--log-driver", "k8s-file", *limits, *options, image, *then)

    def logs(self, name: str) -> str:
        """Return a container's output, for the message of a failed test."""
        words = [*self._words, "logs", name]
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False
        )
        return done.stdout

    def inspect(self, name: str) -> dict:
        return json.loads(self.run("inspect", name))[0]
