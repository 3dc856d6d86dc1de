"""Test bin/upload_batch.sh as the seed's tutorial uses it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from cli.conftest import Run
from support.photos import photo

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "bin" / "upload_batch.sh"


def upload_batch(*argv: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", SCRIPT, *map(str, argv)], capture_output=True, text=True, timeout=60)


def test_uploads_a_photo_many_times(run: Run, addresses: dict[str, str], tmp_path: Path) -> None:
    before = json.loads(run("status", "--json").stdout)["tasks"]
    path = tmp_path / 'odd "name"; x.png'
    path.write_bytes(photo(50))
    done = upload_batch(addresses["keyvaluestore"], path, 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Uploading to {addresses['master']}\n"
    assert upload_batch(f"http://{addresses['keyvaluestore']}/", path).returncode == 0
    after = json.loads(run("status", "--json").stdout)["tasks"]
    assert sum(after.values()) - sum(before.values()) == 4


def test_failures_are_reported(addresses: dict[str, str], tmp_path: Path) -> None:
    assert upload_batch().returncode == 2
    assert "cannot read the photo" in upload_batch(addresses["keyvaluestore"], tmp_path / "none.png").stderr
    (tmp_path / "text.png").write_text("no photo")
    refused = upload_batch(addresses["keyvaluestore"], tmp_path / "text.png", 2)
    assert refused.returncode == 1
    assert "upload 1 of 2 was refused" in refused.stderr
    away = upload_batch("127.0.0.1:1", tmp_path / "text.png")
    assert away.returncode == 1
    assert "are the services running?" in away.stderr
    assert upload_batch(addresses["keyvaluestore"], tmp_path / "text.png", "many").returncode == 2


def test_a_master_with_tls_is_reached_by_the_url_that_it_is_registered_as(tmp_path: Path) -> None:
    """A curl of ours stands for that of the system, and prints what the script asks for."""
    curl = tmp_path / "curl"
    curl.write_text(
        '#!/bin/sh\nfor each; do case $each in *://*) echo "$each" >>"$0.asked"; esac; done\n'
        'case $* in *masterendpoint*) echo https://photos.example.org ;; *) printf "{}\\n200" ;; esac\n'
    )
    curl.chmod(0o755)
    (tmp_path / "a.png").write_bytes(photo(50))
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", SCRIPT, "store.example.org:8000", tmp_path / "a.png"], env={"PATH": path}, timeout=60, check=False
    )
    assert done.returncode == 0
    asked = (tmp_path / "curl.asked").read_text().split()
    assert asked == ["http://store.example.org:8000/masterendpoint", "https://photos.example.org/task"]
