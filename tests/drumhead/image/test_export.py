"""Exports: disks that boot by themselves, and OCI layouts."""

import hashlib
import json
import subprocess

import pytest


@pytest.fixture(scope="module")
def image(drumhead, tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    for name, text in {
        "meta/package.yaml": "name: disk\ntitle: Disk\nauthor: a\nversion: 2\nrequire: [cli]\n",
        "meta/run.yaml": "runtime: native\nconfig_set:\n  say:\n    bootcmd: sh -c 'echo booted from $FROM'\n"
        "    env: {FROM: disk}\n",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    drumhead("package", "compose", "t/disk", "-C", root)
    return "t/disk"


def test_the_same_image_gives_the_same_disk(drumhead, image, tmp_path):
    one, two = tmp_path / "one.raw", tmp_path / "two.raw"
    drumhead("export", image, one, "--format", "raw")
    drumhead("export", image, two, "--format", "raw")
    assert one.read_bytes() == two.read_bytes()
    assert "is there already" in drumhead.refused("export", image, one, status=5)
    table = json.loads(subprocess.run(["sfdisk", "--json", one], capture_output=True, check=True).stdout)
    names = [part["name"] for part in table["partitiontable"]["partitions"]]
    assert names == ["boot", *(f"layer-{number}" for number in range(len(drumhead.json("info", image)["layers"])))]
    layer = table["partitiontable"]["partitions"][1]
    with one.open("rb") as disk:
        disk.seek(layer["start"] * 512)
        assert disk.read(4) == b"hsqs"


def test_an_oci_layout_holds_together(drumhead, image, tmp_path):
    drumhead("export", image, tmp_path / "oci", "--format", "oci")
    index = json.loads((tmp_path / "oci/index.json").read_text())
    blobs = tmp_path / "oci/blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    named = [manifest["config"], *manifest["layers"], *index["manifests"]]
    assert {one["digest"].removeprefix("sha256:") for one in named} == {file.name for file in blobs.iterdir()}
    for one in named:
        contents = (blobs / one["digest"].removeprefix("sha256:")).read_bytes()
        assert (hashlib.sha256(contents).hexdigest(), len(contents)) == (one["digest"][7:], one["size"])


@pytest.mark.slow
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_qcow2_disk_boots_by_itself(drumhead, image, tmp_path, firmware):
    disk = tmp_path / "disk.qcow2"
    drumhead("export", image, disk)
    facts = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, check=True).stdout
    )
    assert facts["format"] == "qcow2"
    assert facts["actual-size"] < 33_000_000
    words = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nographic", "-no-reboot"]
    words += ["-nic", "none", "-drive", f"file={disk},if=virtio"]
    words += ["-bios", "/usr/share/ovmf/OVMF.fd"] if firmware == "uefi" else []
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert b"booted from disk" in done.stdout
