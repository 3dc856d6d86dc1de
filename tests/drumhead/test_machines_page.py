"""Run all commands of docs/guide/machines.md with real machines, which are emulated if there is no KVM."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import skimage

from support.photos import is_inverse
from support.programs.ports import free_port
from support.walkthrough import Walk, steps

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PORTS = (8000, 8003)
"""The host's ports on the page. The test replaces them with free ones, also in the project's files."""
LONGEST = 600.0


@pytest.fixture
def walk(drumhead, tmp_path):
    """Return a walk in a copy of the project, because the page edits the project."""
    for directory in ("meta", "locks", "bin", "deploy"):
        shutil.copytree(ROOT / directory, tmp_path / directory)
    shutil.copy(ROOT / ".drumheadignore", tmp_path)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src/safelight", tmp_path / "src/safelight", ignore=ignore)
    shutil.copy(Path(skimage.__file__).parent / "data/astronaut.png", tmp_path / "photo.png")
    ports = {port: free_port() for port in PORTS}
    for file in (tmp_path / "meta/run.yaml", tmp_path / "deploy/fleet.yaml"):
        text = file.read_text()
        for written, real in ports.items():
            text = text.replace(str(written), str(real))
        file.write_text(text)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    environment["DRUMHEAD_HOME"] = str(drumhead.home.root)
    yield Walk(tmp_path, environment, ports, timeout=LONGEST)
    drumhead.run("delete", "--force", "keyvaluestore", "db", "storage", "master", "worker")
    drumhead.run("down", "safelight")
    for pattern in ("tasks.raw", "photos.raw", "safelight-*.raw"):
        for volume in drumhead.home.volumes.glob(pattern):
            volume.unlink()


async def test_every_command_of_the_page_does_what_the_page_says(walk):
    async with walk:
        for step in steps((ROOT / "docs/guide/machines.md").read_text()):
            await walk.do(step)
    photo, results = walk.directory / "photo.png", sorted((walk.directory / "results").iterdir())
    assert len(results) == 1
    assert is_inverse(photo.read_bytes(), results[0].read_bytes())
