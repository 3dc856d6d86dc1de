"""Test that the committed files are those that the sources produce."""

import gzip
import os
import re
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


@pytest.mark.slow
def test_outdated_types_of_the_api_are_found(tmp_path):
    for name in ("scripts", "src", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "web", tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "web/node_modules").symlink_to(ROOT / "web/node_modules")
    types = tmp_path / "web/src/api/openapi.ts"
    types.write_text(types.read_text().replace("filename: string", "file_name: string"))
    check = subprocess.run(["bash", tmp_path / "scripts/web", "check"], capture_output=True, text=True, cwd=tmp_path)
    assert check.returncode != 0
    assert "run scripts/web" in check.stderr


def test_the_page_is_small_enough():
    assert len(gzip.compress((BUILT / "app.js").read_bytes(), 9)) < 120_000


def test_what_moves_all_the_time_moves_in_steps():
    endless = re.findall(r"animation:([^;}]*infinite[^;}]*)", (BUILT / "style.css").read_text())
    assert len(endless) == 4
    assert all("steps(" in each for each in endless)
