"""Test images for OSv: their contents, a Linux image of the same name, updates, and disks that boot by BIOS.

The kernel is a stand-in (`support.guests.osv`). If DRUMHEAD_OSV_KERNEL names a real one, a disk is booted too.
"""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess

import pytest

from drumhead.filesystem.rofs.root import root_disk
from drumhead.home import Home
from drumhead.image.store import ImageStore, encode
from drumhead.package.osv.module import fit
from support.guests import osv
from support.guests.composing import Drumhead, write_files
from support.guests.rofs import contents_of, read_rofs

WALK = """import hashlib, os
MOUNTED = {"dev", "proc", "sys", "tmp", "run", "var/tmp", "var/log", "data", "drumhead"}
def walk(path):
    for entry in sorted(os.scandir(b"/" + path), key=lambda entry: entry.name):
        name = path + b"/" * bool(path) + entry.name
        if entry.is_symlink():
            print(name.hex(), "symlink", os.readlink(entry.path).hex())
        elif entry.is_dir():
            print(name.hex(), "directory", "")
            if name.decode(errors="replace") not in MOUNTED:
                walk(name)
        else:
            with open(entry.path, "rb") as file:
                print(name.hex(), "file", hashlib.sha256(file.read()).hexdigest())
walk(b"")
print("walked")
"""
VERSION = "0.99.0-7-gabcdef01"


def new_home(drumhead, directory):
    """Return a home with the same packages, so that no other test uses these kernels."""
    for part in ("packages", "blobs"):
        shutil.copytree(drumhead.home.root / part, directory / part, copy_function=os.link)
    # Tests that boot OSv share a kernel, which these tests must not use.
    shutil.rmtree(directory / "packages/osv", ignore_errors=True)
    return Drumhead(Home(root=directory))


@pytest.fixture(scope="module")
def composer(drumhead, tmp_path_factory):
    command = new_home(drumhead, tmp_path_factory.mktemp("osv") / "home")
    command("kernel", "add", *osv.files(command.home.root.parent / "files"))
    return command


@pytest.fixture
def osv_project(project):
    package = project / "meta/package.yaml"
    package.write_text(package.read_text() + "guest: osv\n")
    return project


@pytest.fixture(scope="module")
def image(composer, tmp_path_factory):
    """Return the name of an image whose default command is a Python program."""
    root = write_files(
        tmp_path_factory.mktemp("disk"),
        {
            "meta/package.yaml": "name: disk\ntitle: Disk\nauthor: a\nguest: osv\nrequire: [python]\n",
            "meta/run.yaml": "runtime: python\nconfig_set:\n  say:\n    main: /say.py\n    args: [a word]\n"
            "    env: {FROM: disk}\n  walk:\n    main: /walk.py\n",
            "say.py": "import os, sys\nprint('booted from', os.environ['FROM'], *sys.argv[1:])\n",
            "walk.py": WALK,
            "odd/näme with blanks/文": "inside",
            "odd/empty": "",
            "odd/script": "#!/usr/bin/python3\n",
            "odd/large": bytes(range(256)) * 12_289,
            "/".join(["odd", *["deep"] * 60, "file"]): "bottom",
        },
    )
    (root / "odd/link").symlink_to("../say.py")
    composer("package", "compose", "t/disk", "-C", root, "--run", "say")
    return root


def disk_of(command, name, directory):
    """Return the root file system of an image, read from the disk that QEMU would give to a machine."""
    store = ImageStore(command.home)
    descriptor = directory / "root.vmdk"
    descriptor.write_bytes(root_disk(store.files(store.find(name, "osv")).layers))
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", descriptor, directory / "root.raw"], check=True)
    with (directory / "root.raw").open("rb") as raw:
        return contents_of(read_rofs(raw, 512))


def test_one_name_for_both_guests(composer, project):
    composer("package", "compose", "t/both", "-C", project)
    composer("package", "compose", "t/both", "-C", project, "--guest", "osv")
    listed = {(one["image"], one["guest"]): one for one in composer.json("images")}
    assert {("t/both", "linux"), ("t/both", "osv")} <= set(listed)
    linux, other = composer.json("info", "t/both"), composer.json("info", "t/both", "--guest", "osv")
    assert (linux["guest"], other["guest"]) == ("linux", "osv")
    assert other["kernel"] == f"osv {VERSION}"
    assert [(layer["kind"], layer["filesystem"]) for layer in other["layers"]] == [
        *[("package", "rofs")] * 3,
        ("application", "rofs"),
        ("root", "rofs"),
    ]
    assert {layer["source"] for layer in linux["layers"][:2]} == {layer["source"] for layer in other["layers"][1:3]}
    assert "for linux and for osv; choose one with --guest" in composer.refused("rmi", "t/both", status=5)
    composer("rmi", "t/both", "--guest", "linux")
    assert composer.json("info", "t/both")["guest"] == "osv"
    ImageStore(composer.home).files(ImageStore(composer.home).find("t/both"))  # all of its files must still exist
    composer("rmi", "t/both")
    assert "there is no image t/both for osv" in composer.refused("info", "t/both", "--guest", "osv", status=3)


def test_the_root_of_a_machine_is_what_collecting_gives(composer, osv_project, tmp_path):
    composer("package", "compose", "t/root", "-C", osv_project)
    composer("package", "collect", tmp_path / "collected", "-C", osv_project)
    assert [one["image"] for one in composer.json("images") if "collect" in one["image"]] == []
    found = disk_of(composer, "t/root", tmp_path)
    collected = {}
    for path in (tmp_path / "collected").rglob("*"):
        name = os.fsencode(path.relative_to(tmp_path / "collected"))
        if path.is_symlink():
            target = os.fsencode(path.readlink())
            # OSv does not follow relative links in its root.
            collected[name] = ("symlink", target if b"/" in name else b"/" + target.removeprefix(b"/"))
        elif path.is_dir():
            collected[name] = ("directory", b"")
        else:
            collected[name] = ("file", path.read_bytes())
    assert found == collected
    modules = composer.home.root.parent / "files"
    assert found[b"usr/lib/fs/libext.so"] == ("file", fit((modules / "libext.so").read_bytes()))
    assert found[b"usr/lib/liblwext4.so"] == ("file", fit((modules / "liblwext4.so").read_bytes()))
    assert found[b"main.py"] == ("file", (osv_project / "main.py").read_bytes())
    assert found[b"lib64"] == ("symlink", b"/usr/lib64")


def test_an_update_writes_the_application_and_the_root_only(composer, osv_project, tmp_path):
    compose = ("package", "compose", "t/update", "-C", osv_project, "--update")
    before = composer.json(*compose)["image"]
    assert "nothing changed" in composer(*compose)
    (osv_project / "main.py").write_text(f"print({os.urandom(9)})\n")
    (osv_project / "part/two.py").unlink()
    lines = composer(*compose).splitlines()
    assert lines[:-2] == ["/main.py: edited", "/part/two.py: deleted"]
    after = composer.json(*compose)["image"]
    assert after["kernel"] == before["kernel"]
    changed = [one["kind"] for one, other in zip(after["layers"], before["layers"], strict=True) if one != other]
    assert changed == ["application", "root"]
    found = disk_of(composer, "t/update", tmp_path)
    assert found[b"main.py"] == ("file", (osv_project / "main.py").read_bytes())
    assert b"part/two.py" not in found


def test_a_newer_kernel_changes_nothing_else(drumhead, project, tmp_path):
    command = new_home(drumhead, tmp_path / "home")
    command("kernel", "add", *osv.files(tmp_path / "old", version="v0.57.0"))
    compose = ("package", "compose", "t/kernel", "-C", project, "--guest", "osv", "--update")
    before = command.json(*compose)["image"]
    command("kernel", "add", *osv.files(tmp_path / "new", version="v0.58.0"))
    made = command.json(*compose)
    assert [change["what"] for change in made["changes"]] == ["kernel osv"]
    assert made["changes"][0]["why"] == "0.57.0 → 0.58.0 is in the store"
    assert [layer["blob"] for layer in made["image"]["layers"]] == [layer["blob"] for layer in before["layers"]]
    assert command.json(*compose, "--kernel", "osv@0.57.0")["image"] == before
    package = project / "meta/package.yaml"
    package.write_text(package.read_text() + "guest: osv\nkernel: osv@0.57.0\n")
    assert command.json("package", "compose", "t/kernel", "-C", project)["image"] == before
    assert (
        command.json("package", "compose", "t/kernel", "-C", project, "--guest", "linux")["image"]["guest"] == "linux"
    )


def test_the_same_inputs_give_the_same_image_in_any_home(composer, drumhead, osv_project, tmp_path):
    composer("package", "compose", "t/same", "-C", osv_project)
    other = new_home(drumhead, tmp_path / "a home with another name")
    other("kernel", "add", *(composer.home.root.parent / "files").glob("*.so"), *file_pair(composer))
    shutil.copytree(osv_project, tmp_path / "moved")
    other("package", "compose", "t/same", "-C", tmp_path / "moved")
    one, two = (ImageStore(home).find("t/same") for home in (composer.home, other.home))
    assert encode(one) == encode(two)
    assert str(tmp_path).encode() not in encode(one)


def file_pair(command):
    return [command.home.root.parent / "files" / name for name in ("one", "two")]


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (["--fs", "squashfs"], 2, "guest osv does not read squashfs; it reads rofs"),
        (["--size", "1G"], 5, "OSv has no overlay"),
        (["--kernel", "linux"], 2, "is not a kernel of guest osv"),
        (["--kernel", "osv@0.1"], 3, f"there is no kernel osv@0.1; there is: {VERSION}"),
    ],
)
def test_what_osv_cannot_have_is_refused(composer, osv_project, options, status, reason):
    said = composer.refused("package", "compose", "t/refused", "-C", osv_project, *options, status=status)
    assert reason in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (("-e", "/no/such x"), 2, "the command starts /no/such, which is not in the image"),
        (("-e", "/odd"), 2, "the command starts /odd, which is a directory"),
        (("-e", "/odd/script"), 5, "the command cannot start on osv: /odd/script is a script for /usr/bin/python3"),
        (("--volume", "v:/data:ro"), 5, "cannot mount a disk read-only"),
        (("--volume", "v:/odd/data"), 2, "cannot be mounted at /odd/data: the image has no such directory"),
    ],
)
def test_a_machine_that_could_not_start_is_refused(composer, image, options, status, reason):
    assert reason in composer.refused("run", "--guest", "osv", *options, "-i", "t/disk", "m", status=status)
    assert not composer.json("instances")
    assert not composer.json("volume", "list")


def test_without_a_kernel_it_says_where_there_are_some(empty, project):
    said = empty.refused("package", "compose", "t/none", "-C", project, "--guest", "osv", status=3)
    assert "https://github.com/cloudius-systems/osv/releases" in said
    assert "drumhead kernel add" in said


def partition(disk, number):
    """Return the first sector and the number of sectors of a partition; partitions are counted from 0."""
    kind, first, count = struct.unpack_from("<4xB3xII", disk, 0x1BE + 16 * number)
    assert (kind, disk[0x1BE + 16 * number + 2] & 0x3F > 0) == (0x83, True)
    return first, count


def test_an_exported_disk_is_laid_out_for_the_boot_sector(composer, image, tmp_path):
    raw, again = tmp_path / "disk.raw", tmp_path / "again.raw"
    composer("export", "t/disk", raw, "--format", "raw")
    composer("export", "t/disk", again, "--format", "raw", "--guest", "osv")
    disk, boot = raw.read_bytes(), osv.boot_image()
    assert disk == again.read_bytes()
    assert disk[:0x1CE] == boot[:0x1CE]
    assert disk[65536 : len(boot)] == boot[65536:]
    line = disk[512 : disk.index(b"\0", 512)].decode()
    assert "--rootfs=rofs" in line
    assert "--mount-fs=rofs,/dev/vblk0.2,/drumhead" in line
    assert disk[512 + len(line) : 65536].strip(b"\0") == b""
    (root, count), (config, config_count) = partition(disk, 1), partition(disk, 2)
    assert root * 512 == 2 << 20
    with raw.open("rb") as file:
        found = contents_of(read_rofs(file, root * 512, count * 512))
        settings = contents_of(read_rofs(file, config * 512, config_count * 512))
    assert found == disk_of(composer, "t/disk", tmp_path)
    configuration = json.loads(settings[b"config.json"][1])
    assert configuration["argv"] == ["/say.py", "a word"]
    assert configuration["env"] == {"FROM": "disk"}
    assert configuration["channels"] == {}


def test_a_qcow2_is_the_same_disk(composer, image, tmp_path):
    composer("export", "t/disk", tmp_path / "disk.raw", "--format", "raw")
    composer("export", "t/disk", tmp_path / "disk.qcow2")
    back = tmp_path / "back.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", tmp_path / "disk.qcow2", back], check=True)
    assert back.read_bytes() == (tmp_path / "disk.raw").read_bytes()


def test_an_oci_layout_tells_the_root_from_the_layers(composer, image, tmp_path):
    composer("export", "t/disk", tmp_path / "oci", "--format", "oci")
    index = json.loads((tmp_path / "oci/index.json").read_text())
    blobs = tmp_path / "oci/blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    kinds = [layer["mediaType"].removeprefix("application/vnd.drumhead.") for layer in manifest["layers"]]
    assert kinds == ["kernel.v1+xz", *["layer.v1.rofs"] * 4, "layer.v1.root"]


def test_a_disk_needs_a_boot_image_and_one_command(composer, drumhead, image, project, tmp_path):
    command = new_home(drumhead, tmp_path / "home")
    (tmp_path / "kernel").write_bytes(osv.kernel())
    command("kernel", "add", tmp_path / "kernel")
    command("package", "compose", "t/bare", "-C", image)
    assert "added without its boot image; get loader.img" in command.refused(
        "export", "t/bare", tmp_path / "disk", status=5
    )
    assert not (tmp_path / "disk").exists()
    composer("package", "compose", "t/many", "-C", project, "--guest", "osv", "--run", "module")
    composer("export", "t/many", tmp_path / "chosen.raw", "-f", "raw")
    run = project / "meta/run.yaml"
    run.write_text(run.read_text().replace("config_set_default: hello\n", ""))
    composer("package", "compose", "t/many", "-C", project, "--guest", "osv")
    assert "compose it with --run" in composer.refused("export", "t/many", tmp_path / "disk", status=2)


@pytest.mark.slow
def test_a_disk_boots_by_bios_and_osv_reads_every_file(drumhead, image, tmp_path):
    files = osv.real_files()
    if not any(file.read_bytes()[510:512] == b"\x55\xaa" for file in files):
        pytest.skip("not run: DRUMHEAD_OSV_KERNEL names no loader.img")
    command = new_home(drumhead, tmp_path / "home")
    command("kernel", "add", *files)
    command("package", "compose", "t/disk", "-C", image, "--run", "walk")
    disk = tmp_path / "disk.qcow2"
    command("export", "t/disk", disk)
    # Without QEMU's defaults: OSv waits for the empty CD drive of a q35.
    words = ["qemu-system-x86_64", "-M", "q35", "-nodefaults", "-accel", "tcg", "-cpu", "max", "-m", "256"]
    words += ["-display", "none", "-serial", "stdio", "-no-reboot"]
    words += ["-nic", "user,model=virtio-net-pci", "-drive", f"file={disk},if=virtio"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0
    assert "walked" in said, said[-3000:]
    seen = {
        bytes.fromhex(name): (kind, rest)
        for name, kind, rest in re.findall(r"^([0-9a-f]+) (file|directory|symlink) ([0-9a-f]*)\r?$", said, re.MULTILINE)
    }
    expected = {
        path: (kind, {"file": hashlib.sha256(contents).hexdigest(), "symlink": contents.hex(), "directory": ""}[kind])
        for path, (kind, contents) in disk_of(command, "t/disk", tmp_path).items()
    }
    assert seen == expected
