"""Test bin/upload_batch.sh as the seed's tutorial uses it."""

import json
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
    assert upload_batch(addresses["keyvaluestore"], path).returncode == 0
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
