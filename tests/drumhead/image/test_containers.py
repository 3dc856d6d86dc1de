"""Test container images made from composed images: no kernel, shared layers, and services under podman and runc."""

import json
import os
import subprocess
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest

from drumhead.blobs import Blobs
from drumhead.home import Home
from drumhead.image.export.container import Service, write_container
from drumhead.image.layers.store import write_layer
from drumhead.image.store import ImageStore
from drumhead.records import Blob, Command, Image, Kernel, Layer
from drumhead.tree import Tree, directory, regular
from support.guests.containers import LIMIT, Podman
from support.photos import is_inverse, photo
from support.programs.command import COMMAND, environment

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
SERVICES = {"keyvaluestore": 8000, "db": 8001, "storage": 8002, "master": 8003, "worker": 8004}
NOBODY = 65534


@pytest.fixture(scope="module")
def layout(drumhead, tmp_path_factory):
    """Return the OCI layout of safelight's image, exported with its fleet file."""
    drumhead("package", "compose", "-C", ROOT, "safelight")
    out = tmp_path_factory.mktemp("containers") / "layout"
    drumhead("export", "safelight", out, "--format", "container", "--fleet", ROOT / "deploy/fleet.yaml")
    return out


def blob(layout, digest):
    return layout / "blobs/sha256" / digest.removeprefix("sha256:")


def manifests(layout):
    """Return the manifest and the configuration of each image in a layout, by reference."""
    found = {}
    for one in json.loads((layout / "index.json").read_text())["manifests"]:
        manifest = json.loads(blob(layout, one["digest"]).read_text())
        config = json.loads(blob(layout, manifest["config"]["digest"]).read_text())
        found[one["annotations"]["org.opencontainers.image.ref.name"]] = manifest, config
    return found


def test_skopeo_reads_what_each_service_needs(layout):
    for name, port in SERVICES.items():
        words = ["skopeo", "inspect", "--config", f"oci:{layout}:{name}"]
        config = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=LIMIT).stdout)["config"]
        assert config["User"] == f"{NOBODY}:{NOBODY}"
        assert f"{port}/tcp" in config["ExposedPorts"]
        assert f"safelight.{name}" in config["Entrypoint"]
        assert "SAFELIGHT_CLUSTER_KEY_FILE=/run/secrets/cluster-key" in config["Env"]
        assert ("/data" in config.get("Volumes", {})) == (name in {"keyvaluestore", "db", "storage"})
    layers = {json.dumps(manifest["layers"]) for manifest, _ in manifests(layout).values()}
    assert len(layers) == 1, "the images share their layers"
    named = {layer["digest"] for layer in json.loads(layers.pop())}
    names = set()
    for digest in named:
        with tarfile.open(blob(layout, digest)) as archive:
            names.update(archive.getnames())
    assert any(name.startswith("srv/safelight/master/app") for name in names)
    assert not any("vmlinu" in name or name.endswith(".ko") for name in names), "a container has no kernel"


def test_five_containers_turn_a_photo_into_its_inverse(layout, tmp_path):
    key, hosts = tmp_path / "cluster-key", tmp_path / "hosts"
    key.write_text("containers-of-a-test-speak-to-one-another\n")
    key.chmod(0o400)
    subprocess.run(["chown", f"{NOBODY}:{NOBODY}", key], check=True)
    hosts.write_text("127.0.0.1 localhost keyvaluestore master.localhost\n")
    (tmp_path / "photo.png").write_bytes(photo(3))
    # An anonymous volume gets the owner of its directory in the image; everything else is read-only.
    mounts = (
        "--read-only",
        "--volume",
        "/data",
        "--volume",
        f"{key}:/run/secrets/cluster-key:ro",
        "--volume",
        f"{hosts}:/etc/hosts:ro",
    )
    with Podman() as podman:
        for name in SERVICES:
            podman.load(layout, name, f"localhost/safelight:{name}")
            network = "none" if name == "keyvaluestore" else "container:keyvaluestore"
            podman.start(name, f"localhost/safelight:{name}", "--network", network, *mounts)
        for name in SERVICES:
            deadline = time.monotonic() + LIMIT
            while not podman.succeeds("healthcheck", "run", name):
                assert podman.inspect(name)["State"]["Running"], podman.logs(name)
                assert time.monotonic() < deadline, podman.logs(name)
        pid = podman.inspect("master")["State"]["Pid"]
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}" in status
        words = ["nsenter", f"--net=/proc/{pid}/ns/net", COMMAND, "upload", "--master", "127.0.0.1:8003"]
        words += ["--recipe", "invert", "--output", tmp_path / "results", tmp_path / "photo.png"]
        subprocess.run(words, env=environment(SAFELIGHT_CLUSTER_KEY_FILE=str(key)), timeout=LIMIT, check=True)
        (result,) = [file for file in (tmp_path / "results").rglob("*") if file.is_file()]
        assert is_inverse(photo(3), result.read_bytes())
        podman.run("stop", "--time", "30", *reversed(SERVICES))
        ended = {name: podman.inspect(name)["State"]["ExitCode"] for name in SERVICES}
        assert ended == dict.fromkeys(SERVICES, 0)


@pytest.fixture(scope="module")
def small(drumhead, tmp_path_factory):
    """Compose and export a small Python server; return the directory."""
    root = tmp_path_factory.mktemp("small")
    for name, text in {
        "meta/package.yaml": "name: answer\ntitle: Answer\nauthor: a\nversion: 3\nrequire: [python]\n",
        "meta/run.yaml": "runtime: python\nconfig_set:\n  serve: {main: /serve.py}\n  other: {main: /serve.py}\n",
        "serve.py": "import socket\nserver = socket.create_server(('127.0.0.1', 8080))\nwhile True:\n"
        "    one, _ = server.accept()\n    one.recv(4096)\n"
        "    open('/data/asked', 'a').write('x')\n"
        "    one.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')\n    one.close()\n",
        "fleet.yaml": "name: one\nmembers:\n  answer:\n    image: t/answer\n    run: serve\n"
        "    health: {port: 8080, path: /}\n    volumes: ['answers:/data:64M']\n",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    drumhead("package", "compose", "t/answer", "-C", root)
    return root


def test_runc_runs_it_for_somebody_without_rights(drumhead, small, tmp_path_factory):
    """Run a rootless container: in a user namespace, as nobody on the host."""
    out = small / "layout"
    drumhead("export", "t/answer", out, "--format", "container", "--fleet", small / "fleet.yaml")
    again = small / "again"
    drumhead("export", "t/answer", again, "--format", "container", "--fleet", small / "fleet.yaml")
    assert (again / "index.json").read_bytes() == (out / "index.json").read_bytes()
    ((manifest, config),) = manifests(out).values()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:  # the user nobody cannot read pytest's directories
        bundle = Path(scratch)
        for layer in manifest["layers"]:
            (bundle / "rootfs").mkdir(exist_ok=True)
            subprocess.run(["tar", "-xf", blob(out, layer["digest"]), "-C", bundle / "rootfs"], check=True)
        nobody("runc", "spec", "--rootless", "--bundle", bundle, owned=bundle)
        spec = json.loads((bundle / "config.json").read_text())
        wanted = config["config"]
        spec["process"] |= {"terminal": False, "args": wanted["Entrypoint"], "env": wanted["Env"]}
        spec["root"]["readonly"] = True
        data = {"destination": "/data", "source": str(bundle / "data"), "options": ["bind", "rw"]}
        spec["mounts"].append(data)
        (bundle / "data").mkdir()
        (bundle / "config.json").write_text(json.dumps(spec))
        runc = ("runc", "--root", bundle / "state")
        log = (bundle / "log").open("wb")
        with log:
            nobody(*runc, "run", "--detach", "--bundle", bundle, "answer", owned=bundle, stdout=log)
        try:
            probe = wanted["Healthcheck"]["Test"][1:]
            deadline = time.monotonic() + LIMIT
            while nobody(*runc, "exec", "answer", *probe, check=False).returncode:
                assert time.monotonic() < deadline, (bundle / "log").read_text()
            assert (bundle / "data/asked").read_text() == "x"
            assert (bundle / "data/asked").stat().st_uid == NOBODY
        finally:
            nobody(*runc, "delete", "--force", "answer", check=False)


def nobody(*words, owned=None, check=True, stdout=subprocess.PIPE):
    """Run a program as the user nobody without any capabilities, which first becomes the owner of `owned`."""
    if owned:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", owned], check=True)
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    done = subprocess.run([*drop, *words], stdout=stdout, stderr=subprocess.STDOUT, timeout=LIMIT, check=False, cwd="/")
    assert done.returncode == 0 or not check, done.stdout
    return done


@pytest.mark.parametrize("filesystem", ["squashfs", "erofs"])
def test_a_container_has_the_modes_of_its_layers_whoever_exports_it(filesystem):
    tree = Tree()
    tree.add("usr/bin/su", regular(b"su", 0o4755))
    tree.add("usr/bin/write", regular(b"write", 0o2711))
    tree.add("etc/shadow", regular(b"root:*:", 0))
    tree.add("etc/open", regular(b"", 0o666))
    tree.add("var/tmp", directory(0o1777))
    tree.add("var/mail", directory(0o2775))
    tree.add("locked/file", regular(b"kept"))
    tree.add("locked", directory(0o511 if filesystem == "erofs" else 0o111))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:  # the user nobody cannot read pytest's directories
        home, out = Home(root=Path(place) / "home"), Path(place) / "layout"
        write_layer(tree, Path(place) / "layer", filesystem, 1)
        image = image_of(Blobs(home).put((Path(place) / "layer").read_bytes()), filesystem)
        export = partial(write_container, home, image, [Service(name="a", command=Command(argv=("/a",)))], "1:1", out)
        as_nobody(export, place)
        ((manifest, _),) = manifests(out).values()
        with tarfile.open(blob(out, manifest["layers"][0]["digest"])) as layer:
            assert {member.name: member.mode for member in layer} == {path: entry.mode for path, entry in tree}
            assert layer.extractfile("locked/file").read() == b"kept"


def image_of(layer, filesystem):
    """Return an image of one layer."""
    kernel = Kernel(package="linux", version="1", vmlinux=Blob(digest="0" * 64, size=0), initrd=None)
    layers = (
        Layer(kind="application", name="a", filesystem=filesystem, source="", blob=layer, files=1, unpacked_size=1),
    )
    return Image(name="a", title="A", version="1", guest="linux", kernel=kernel, layers=layers)


def as_nobody(function, place):
    """Call a function in a process of the user nobody, who becomes the owner of `place`, with a strict umask."""
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", place], check=True)
    if pid := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return
    status = 1
    try:
        os.umask(0o077)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        function()
        status = 0
    finally:
        os._exit(status)


def test_what_no_container_can_be_is_refused(drumhead, small):
    images = ImageStore(drumhead.home)
    image = images.find("t/answer")
    images.put(msgspec.structs.replace(image, name="t/unikernel", guest="osv"))
    images.put(msgspec.structs.replace(image, name="t/nothing", commands={}, default=""))
    out = small / "refused"
    words = ("--format", "container")
    assert "--guest linux" in drumhead.refused("export", "t/unikernel", out, *words, status=5)
    assert "has no config set" in drumhead.refused("export", "t/nothing", out, *words, status=2)
    assert "not a user" in drumhead.refused("export", "t/answer", out, *words, "--user", "root", status=2)
    assert "--format container" in drumhead.refused("export", "t/answer", out, "--run", "serve", status=2)
    assert not list(small.glob("*refused*")), "nothing is left behind"
    spaced = Service(name="b c", command=Command(argv=("/a",)))
    (notice,) = write_container(drumhead.home, image, [spaced], "1:1", small / "spaced")
    assert notice.startswith("skopeo and podman do not find 'b c' in the layout")
    drumhead("export", "t/answer", out, *words, "--run", "other")
    assert list(manifests(out)) == ["other"]
    drumhead("rmi", "t/unikernel", "t/nothing")
