"""Test exports: bootable disks, OCI layouts, and machines of KubeVirt."""

import hashlib
import json
import subprocess
import sys
import tarfile

import pytest

from drumhead.image.export.layout import (
    REFERENCE,
    config_of,
    encode,
    entry,
    manifest_of,
    put,
    reference_of,
    write_index,
)
from support.guests.exported import CPU, boot, config_disk, press_power_button, says


@pytest.fixture(scope="module")
def image(drumhead, tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    for name, text in {
        "meta/package.yaml": "name: disk\ntitle: Disk\nauthor: a\nversion: 2\nrequire: [cli]\n",
        "meta/run.yaml": "runtime: native\nconfig_set:\n  say:\n    bootcmd: sh -c 'echo booted from $FROM'\n"
        "    env: {FROM: disk}\n"
        "  serve:\n    bootcmd: sh -c 'exit 7'\n    env: {FROM: disk, KEPT: kept}\n"
        "config_set_default: say\n",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    drumhead("package", "compose", "t/disk", "-C", root)
    return "t/disk"


@pytest.fixture(scope="module")
def disk(drumhead, image, tmp_path_factory):
    """Return the image as a disk, which machines leave as it is."""
    path = tmp_path_factory.mktemp("disk") / "disk.qcow2"
    drumhead("export", image, path)
    return path


@pytest.mark.parametrize(
    ("version", "name"),
    [("1.0+b-1", "1.0+b-1"), ("1.0~rc1", "1.0_rc1"), ("1..0~~2-", "1.0_2"), ("a__b", "a_b"), ("", "latest")],
)
def test_skopeo_finds_an_image_of_any_version_in_a_layout(tmp_path, version, name):
    config = put(tmp_path, encode(config_of([], {})))
    write_index(tmp_path, [entry(put(tmp_path, encode(manifest_of(config, [], {}))), reference_of(version))])
    command = ["skopeo", "inspect", "--raw", f"oci:{tmp_path}:{name}"]
    assert config.digest in subprocess.run(command, capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize(
    ("name", "found"), [("web_2", True), ("a/b-c", True), ("b c", False), ("é", False), ("_a", False)]
)
def test_it_is_known_which_names_skopeo_takes(tmp_path, name, found):
    write_index(tmp_path, [])
    said = subprocess.run(["skopeo", "inspect", f"oci:{tmp_path}:{name}"], capture_output=True, text=True, check=False)
    assert ("Invalid image" not in said.stderr) is found is bool(REFERENCE.fullmatch(name))


def test_the_same_image_gives_the_same_disk(drumhead, image, tmp_path):
    one, two = tmp_path / "one.raw", tmp_path / "two.raw"
    drumhead("export", image, one, "--format", "raw")
    drumhead("export", image, two, "--format", "raw")
    assert one.read_bytes() == two.read_bytes()
    assert "already exists" in drumhead.refused("export", image, one, status=5)
    table = json.loads(subprocess.run(["sfdisk", "--json", one], capture_output=True, check=True).stdout)
    names = [part["name"] for part in table["partitiontable"]["partitions"]]
    assert names == ["boot", *(f"layer-{number}" for number in range(len(drumhead.json("info", image)["layers"])))]
    layer = table["partitiontable"]["partitions"][1]
    with one.open("rb") as disk:
        disk.seek(layer["start"] * 512)
        assert disk.read(4) == b"hsqs"


def test_a_full_disk_is_the_reason(drumhead, image, tmp_path):
    """The programs that write the boot partition do not all say so."""
    words = ["mount -t tmpfs -o size=64k none $0 && exec env", f"DRUMHEAD_HOME={drumhead.home.root}"]
    words += [sys.executable, "-m drumhead export", image, "$0/disk.raw", "--format raw"]
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", " ".join(map(str, words)), tmp_path]
    done = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert f"{tmp_path}/disk.raw: No space left on device; free some space" in done.stderr


def test_an_oci_layout_appears_only_when_it_is_complete(drumhead, image, tmp_path):
    words = ["mount -t tmpfs -o size=64k none $0 && exec env", f"DRUMHEAD_HOME={drumhead.home.root}"]
    words += ["sh -c", f"'{sys.executable} -m drumhead export {image} $0/oci --format oci; ls -A $0'", "$0"]
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", " ".join(words), tmp_path]
    done = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert "No space left on device" in done.stderr
    assert done.stdout == ""


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
def test_a_qcow2_disk_boots_by_itself(disk, firmware):
    facts = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, check=True).stdout
    )
    assert facts["format"] == "qcow2"
    assert facts["actual-size"] < 33_000_000
    words = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", CPU, "-m", "256", "-nographic", "-no-reboot"]
    words += ["-nic", "none", "-snapshot", "-drive", f"file={disk},if=virtio"]
    words += ["-bios", "/usr/share/ovmf/OVMF.fd"] if firmware == "uefi" else []
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert b"booted from disk" in done.stdout


SERVE = """
echo $FROM $KEPT $(cat /run/secrets/key /data/before) $(ls -A /run/secrets) $(stat -c %a /run/secrets/key)
trap 'echo stopped >/data/after; echo goodbye; exit' TERM
echo serving
while :; do sleep 1; done
"""


@pytest.mark.slow
def test_a_disk_for_kubevirt_is_configured_by_other_disks_and_stops_by_the_power_button(drumhead, image, tmp_path):
    """Configure a disk with disks that are made as KubeVirt makes them from a ConfigMap, a Secret and a volume."""
    drumhead("export", image, tmp_path / "layout", "--format", "containerdisk")
    words = ["skopeo", "copy", f"oci:{tmp_path}/layout:2", f"dir:{tmp_path}/pulled"]
    subprocess.run(words, check=True, capture_output=True)
    (layer,) = json.loads((tmp_path / "pulled/manifest.json").read_text())["layers"]
    with tarfile.open(tmp_path / "pulled" / layer["digest"].removeprefix("sha256:")) as tar:
        assert {(one.name, one.uid, one.gid) for one in tar} == {("disk", 107, 107), ("disk/disk.qcow2", 107, 107)}
        contents = tar.extractfile("disk/disk.qcow2")
        assert contents is not None
        (tmp_path / "disk.qcow2").write_bytes(contents.read())
    told = {"run": "serve", "argv": ["sh", "-c", SERVE], "env": {"FROM": "machine.json"}}
    told["mounts"] = [{"serial": "data", "path": "/data"}]
    config = config_disk(tmp_path / "config", {"machine.json": json.dumps(told)})
    secrets = config_disk(tmp_path / "secrets", {"key": "hidden\n"})
    (tmp_path / "before").write_text("earlier")
    drumhead("volume", "create", "exported", "--size", "64M")
    data = drumhead.home.volumes / "exported.raw"
    subprocess.run(["debugfs", "-w", "-R", f"write {tmp_path}/before before", data], check=True, capture_output=True)
    disks = {"config": config, "secrets": secrets, "data": data}
    with boot(tmp_path / "disk.qcow2", disks, tmp_path) as machine:
        says(machine, b"machine.json kept hidden earlier key 600")
        says(machine, b"serving")
        press_power_button(tmp_path)
        says(machine, b"goodbye")
        assert machine.wait(60) == 0, "it was switched off, not started again"
    read = ["debugfs", "-R", "cat after", data]
    assert subprocess.run(read, check=True, capture_output=True).stdout == b"stopped\n"
    drumhead("volume", "delete", "exported")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "form"),
    [
        ({"env": {"FROM": 8080}}, "env must be an object of texts"),
        ({"argv": "echo hello"}, "argv must be a list of texts"),
    ],
)
def test_a_configuration_that_would_be_read_in_part_starts_nothing(disk, tmp_path, told, form):
    config = config_disk(tmp_path / "config", {"machine.json": json.dumps(told)})
    with boot(disk, {"config": config}, tmp_path) as machine:
        says(machine, f"drumhead: machine.json: {form}; texts are in quotes, also numbers".encode())
