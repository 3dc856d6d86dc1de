"""The drumhead command in a test, projects to compose, and what is in the layers of an image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from drumhead.errors import DrumheadError
from drumhead.home import Home
from drumhead.image.layers.store import LayerRecord
from drumhead.image.store import ImageStore
from drumhead.package.store import PackageStore, parse_ref

COMMAND = [sys.executable, "-c", "import sys; from drumhead.cli import main; sys.exit(main())"]


@dataclass
class Drumhead:
    """The drumhead command with one DRUMHEAD_HOME."""

    home: Home
    words: ClassVar = COMMAND

    def __call__(self, *arguments, status=0, cwd=None):
        """What the command printed to stdout; its exit status must be `status`."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == status, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, *arguments, cwd=None):
        env = {**os.environ, "DRUMHEAD_HOME": str(self.home.root), "COLUMNS": "200"}
        words = [*self.words, *map(str, arguments)]
        return subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)

    def refused(self, *arguments, status, cwd=None):
        """The one sentence with which the command refuses, ending with `status`."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == status, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr.strip()

    def json(self, *arguments, cwd=None):
        return json.loads(self(*arguments, "--json", cwd=cwd))

    def package(self, name):
        """A package of the store, built from its recipe when it is not there yet."""
        store = PackageStore(self.home)
        try:
            return store.find(parse_ref(name))
        except DrumheadError:
            self("package", "build", name)
            return store.find(parse_ref(name))


def write_files(root, files):
    """Write a tree of files, text or bytes by path; return its root."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.write_text(text)
    return root


def listing(command, image, kind="application"):
    """The paths of an image's layer, with their nodes."""
    (layer,) = [layer for layer in ImageStore(command.home).find(image).layers if layer.kind == kind]
    return msgspec.json.decode(
        (command.home.cache / "layers" / f"{layer.source}.json").read_bytes(), type=LayerRecord
    ).index
