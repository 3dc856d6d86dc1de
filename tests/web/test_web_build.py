"""The committed files are what the sources make."""

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "src/safelight/web/static"


@pytest.mark.slow
def test_the_built_files_are_those_of_the_sources(tmp_path):
    subprocess.run([ROOT / "scripts/web", "check"], check=True)
    environment = {**os.environ, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    node = shutil.which("node", path=environment["PATH"])
    assert node is not None
    subprocess.run([node, ROOT / "web/build.js", tmp_path / "static"], check=True, env=environment)
    made = {path.name: path.read_bytes() for path in (tmp_path / "static").iterdir()}
    committed = {path.name: path.read_bytes() for path in BUILT.iterdir()}
    assert made == committed, "run scripts/web and commit what it makes"


def test_small_enough():
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in BUILT.iterdir()) < 100_000
