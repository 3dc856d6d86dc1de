"""Test a damaged store: an error names the damaged record and a remedy, and a damaged cache is made again."""

import json
import os
import time

import pytest

from drumhead.blobs import ABANDONED, Blobs
from drumhead.home import Home
from drumhead.machine.instances import Instances
from drumhead.machine.leftovers import sweep
from drumhead.machine.snapshot.store import Snapshots
from support.guests.stubs import launched


@pytest.mark.slow
@pytest.mark.parametrize("contents", [b"", b"{", b'[{"name":"\xff"}]', b'{"name":"\xff","guest":"\xff"}'])
@pytest.mark.parametrize(
    ("path", "words", "status"),
    [
        ("images/shop/image.json", ("images",), 6),
        ("packages/own/1.0.json", ("package", "list"), 6),
        ("fleets/shop/fleet.json", ("down", "shop"), 6),
        ("instances/shop/instance.json", ("instances",), 5),
        ("remotes.json", ("remote", "list"), 2),
    ],
)
def test_a_damaged_record_is_named(empty, path, words, status, contents):
    file = empty.home.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(contents)
    assert empty.refused(*words, status=status).startswith(f"drumhead: {file}")


def test_a_damaged_cache_is_made_again(drumhead, project):
    drumhead("package", "compose", "t/cached", "-C", project)
    kernels = list(drumhead.home.cache.glob("kernels/*.json"))
    for file in kernels:
        file.write_bytes(b"{")
    drumhead("package", "compose", "t/cached", "-C", project)
    made = [json.loads(file.read_bytes()) for file in kernels if file.stat().st_size > 1]
    assert drumhead.json("info", "t/cached")["kernel"] in [f"{one['package']} {one['version']}" for one in made]
    drumhead("rmi", "t/cached")


def test_what_a_killed_command_left_is_swept_and_what_another_writes_is_kept(tmp_path):
    home = Home(root=tmp_path)
    kept, unused = Blobs(home).put(b"kept"), Blobs(home).put(b"unused")
    left, new = home.blobs / ".new-left", home.blobs / ".new-written"
    for file in (left, new):
        file.write_bytes(b"half")
    os.utime(left, (time.time() - ABANDONED - 1,) * 2)
    assert Blobs(home).sweep({kept.digest}) == unused.size + 4
    assert sorted(home.blobs.iterdir()) == [new, home.blobs / kept.digest]


def test_machines_snapshots_and_volumes_that_a_killed_command_did_not_finish_are_swept(tmp_path):
    home = Home(root=tmp_path)
    left = [
        tmp_path / name
        for name in (
            "instances/half/image.json",
            "instances/busy/image.json",
            "snapshots/half/memory",
            "volumes/.new-x",
        )
    ]
    kept = [
        tmp_path / name for name in ("instances/whole/image.json", "snapshots/whole/snapshot.json", "volumes/d.raw")
    ]
    for file in [*left, *kept]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"{")
    with Instances(home).lock("whole"):
        Instances(home).write(launched("whole"))
    with Instances(home).lock("busy"), Snapshots(home).lock():  # as another command that is making them
        sweep(home)
        assert [file.exists() for file in left] == [False, True, True, False]
    sweep(home)
    assert not any(file.exists() for file in left)
    assert [path.name for path in sorted(tmp_path.glob("*/*/"))] == ["whole", "whole"]
    assert all(file.exists() for file in kept)
