"""Run the drumhead command in tests, write projects, and list the layers of images."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from drumhead.errors import DrumheadError
from drumhead.home import Home
from drumhead.image.layers.store import LayerRecord
from drumhead.image.store import ImageStore
from drumhead.manifest.project import read_project
from drumhead.package.store import PackageStore, parse_ref
from support.programs import forked

COMMAND = [sys.executable, "-m", "drumhead"]
FAST_LEVEL = 9
"""The level of compression at which tests pack the layers of packages."""
FAST_ARCHIVE_LEVEL = 1
"""The level at which they pack archives, which are in no image."""
_PACK_FAST = (
    "import sys; from drumhead.package import store; from drumhead.image.layers import store as layers; "
    "from drumhead.cli import main; "
    f"store.LAYER_LEVEL = layers.LEVEL = {FAST_LEVEL}; store.ZSTD_LEVEL = {FAST_ARCHIVE_LEVEL}; sys.exit(main())"
)
PACKING_FAST = [sys.executable, "-c", _PACK_FAST]
"""The command with less compression: Python's layer takes 0.9 s of processor time instead of 8 and has 8 % more bytes.

Users pack a package once, and every run of the tests packs it again.
"""


@dataclass
class Drumhead:
    """Run the drumhead command with one DRUMHEAD_HOME."""

    home: Home
    words: ClassVar = COMMAND

    def __call__(self, *arguments, status=0, cwd=None):
        """Run the command, assert its exit status, and return its standard output."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == status, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, *arguments, cwd=None, pack_fast=False):
        env = {**os.environ, "DRUMHEAD_HOME": str(self.home.root), "COLUMNS": "200"}
        fast = pack_fast or arguments[:2] == ("package", "build")
        words = [*(PACKING_FAST if fast else self.words), *map(str, arguments)]
        return forked.run(words, env=env, cwd=cwd, timeout=600)

    def refused(self, *arguments, status, cwd=None):
        """Run the command, assert its exit status, and return its error message, which must be one sentence."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == status, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr.strip()

    def json(self, *arguments, cwd=None):
        return json.loads(self(*arguments, "--json", cwd=cwd))

    def package(self, name):
        """Return a package of the store; build it from its recipe if it is missing."""
        store = PackageStore(self.home)
        try:
            return store.find(parse_ref(name))
        except DrumheadError:
            self("package", "build", name)
            return store.find(parse_ref(name))


def write_files(root, files):
    """Write files (text or bytes by path) below a directory; return the directory."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.write_text(text)
    return root


def write_wheel(place, files):
    """Write a wheel of the package `inhouse` with these files; return its path and digest."""
    wheel = place / "inhouse-1.0-py3-none-any.whl"
    described = {
        "METADATA": "Metadata-Version: 2.1\nName: inhouse\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {
            **{f"inhouse-1.0.dist-info/{name}": text for name, text in described.items()},
            **files,
        }.items():
            archive.writestr(name, text)
    return wheel, hashlib.sha256(wheel.read_bytes()).hexdigest()


def listing(command, image, kind="application"):
    """Return the paths of an image's layer with their nodes."""
    (layer,) = [layer for layer in ImageStore(command.home).find(image).layers if layer.kind == kind]
    return msgspec.json.decode(
        (command.home.cache / "layers" / f"{layer.source}.json").read_bytes(), type=LayerRecord
    ).index


def node_project(
    root, *, require="", package=None, lock=None, run="runtime: node\nconfig_set:\n  web: {main: /s.js}\n"
):
    """Write a project for Node.js with these files, and read it."""
    files = {
        "meta/package.yaml": f"name: web\ntitle: Web\nauthor: a\nrequire: [{require}]\n",
        "meta/run.yaml": "runtime: node\nconfig_set:\n  web: {main: /s.js}\n",
        "s.js": "",
    }
    if package is not None:
        files["package.json"] = json.dumps(package)
    if lock is not None:
        files["package-lock.json"] = json.dumps({"lockfileVersion": 3, "packages": lock}, indent=1)
    return read_project(write_files(root, files))
