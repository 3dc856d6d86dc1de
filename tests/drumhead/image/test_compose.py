"""Test composing: the contents of an image, updates, and that the same inputs give the same bytes."""

import asyncio
import os
import re
import shutil
import socket
from contextlib import ExitStack

import pytest

from drumhead.home import Home
from drumhead.image.layers.plan import usr_links
from drumhead.image.layers.store import PACKING, LayerStore, kept_blobs
from drumhead.image.store import ImageStore, encode
from drumhead.package.store import PackageStore
from drumhead.report import silent
from drumhead.tree import Tree, regular
from support.guests.composing import Drumhead, listing, write_files, write_wheel
from support.guests.machines import command


def unpacked(command, image, path, tmp_path):
    """Return the bytes of one file of an image's application layer, read with unsquashfs."""
    files = ImageStore(command.home).files(ImageStore(command.home).find(image))
    os.system(f"unsquashfs -q -n -f -d {tmp_path}/out {files.layers[-1]} {path} > /dev/null")
    return (tmp_path / "out" / path).read_bytes()


def test_what_an_image_holds(drumhead, project, tmp_path):
    out = drumhead("package", "compose", "t/holds", "-C", project, "--size", "10G")
    assert re.search(r"^Composed t/holds: \d+ files in 3 layers", out, re.MULTILINE)
    assert "Command line set to: '/usr/bin/python3 /main.py world'" in out
    facts = drumhead.json("info", "t/holds")
    assert {"disk_size", "virtual_size", "format", "layers"} <= set(facts)
    assert facts["virtual_size"] > 10 << 30
    assert facts["disk_size"] < 20_000_000
    assert facts["commands"]["module"] == {
        "argv": ["/usr/bin/python3", "-m", "part.one"],
        "env": {"DEPTH": "3"},
        "cwd": "/",
    }
    text = drumhead("info", "t/holds")
    assert re.search(r"^file format: drumhead$", text, re.MULTILINE)
    assert re.search(r"^disk size: [\d.]+ MiB$", text, re.MULTILINE)
    assert "t/holds" in drumhead("images")
    files = listing(drumhead, "t/holds")
    assert {"main.py", "part/one.py", "__pycache__/main.cpython-311.pyc", "etc/drumhead/run.json"} <= set(files)
    assert "usr/bin/tool.sh" in files, "bin is a link in the guest, and the project's bin goes through it"
    assert "usr/lib/notes.txt" in files
    assert files["bin"].kind == "symlink"
    assert not [path for path in files if path.startswith("meta")]
    assert unpacked(drumhead, "t/holds", "main.py", tmp_path) == (project / "main.py").read_bytes()


def test_the_files_of_the_root_are_found_from_usr_too():
    def tree(*paths):
        made = Tree()
        for path in paths:
            made.add(path, regular(b""))
        return made

    def links(files, covered):
        return {path: entry.target for path, entry in usr_links(files, covered) if entry.kind == "symlink"}

    project = tree("bin/www", "app.js", "routes/index.js", "share/web/page", "share/doc/x", "etc/web", "usr/etc/own")
    lower = tree("node_modules/express/index.js", "usr/share/doc/copyright", "usr/app.js")
    assert links(project, lower) == {
        "usr/node_modules": "/node_modules",
        "usr/routes": "/routes",
        "usr/etc/web": "/etc/web",
        "usr/share/web": "/share/web",
        "usr/share/doc/x": "/share/doc/x",
    }
    assert links(tree("src/app.js", "lib/x.js"), Tree()) == {"usr/src/app.js": "/src/app.js"}
    assert not links(tree("app.js", "usr/bin/tool"), lower), "nothing is in /bin or /lib"


def test_commands_that_unpack_one_interpreter_wait_for_each_other(drumhead, project, tmp_path):
    drumhead("package", "compose", "t/first", "-C", project)
    shutil.rmtree(drumhead.home.cache / "interpreters")
    shutil.rmtree(drumhead.home.cache / "bytecode")
    with ExitStack() as stack:
        running = []
        for name in ("one", "other"):
            copied = shutil.copytree(project, tmp_path / name)
            (copied / "fresh.py").write_text(f"print({name!r})\n")
            words = ("package", "compose", f"t/{name}", "-C", copied)
            running.append(stack.enter_context(command(drumhead.home, *words)))
        for process in running:
            said = process.communicate(timeout=120)[1].decode()
            assert process.returncode == 0, said


def test_an_interrupted_command_leaves_nothing_that_stops_the_next(drumhead, project):
    drumhead("package", "compose", "t/before", "-C", project)
    for mark in (drumhead.home.cache / "interpreters").glob("*/.complete"):
        mark.unlink()
    (project / "main.py").write_text("print('after')\n")
    drumhead("package", "compose", "t/after", "-C", project)
    assert list((drumhead.home.cache / "interpreters").glob("*/.complete"))


def test_an_update_says_what_changed_and_why(drumhead, project):
    compose = ("package", "compose", "t/update", "-C", project, "--update")
    drumhead(*compose)
    assert "nothing changed" in drumhead(*compose)
    (project / "main.py").write_text(f"print({os.urandom(9)})\n")
    (project / "part/two.py").unlink()
    (project / "part/three.py").write_text("")
    (project / "bin/tool.sh").chmod(0o755)
    (project / "lib/notes.txt").unlink()
    (project / "lib/notes.txt").symlink_to("nowhere")
    lines = drumhead(*compose).splitlines()
    assert lines[:-2] == [
        "/main.py: edited",
        "/part/three.py: added",
        "/part/two.py: deleted",
        "/usr/bin/tool.sh: mode 0644 → 0755",
        "/usr/lib/notes.txt: file became symlink",
    ]
    assert "(2 kept)" in lines[-2]
    files = listing(drumhead, "t/update")
    assert "part/two.py" not in files
    assert "part/__pycache__/two.cpython-311.pyc" not in files
    manifest = project / "meta/run.yaml"
    manifest.write_text(manifest.read_text().replace("default: hello", "default: module"))
    assert "default command: changed" in drumhead(*compose)
    (project / "meta/package.yaml").write_text((project / "meta/package.yaml").read_text() + "- cli\n")
    assert "package cli: required now" in drumhead(*compose)


def test_layers_that_follow_from_a_key_outlive_their_image_for_a_while(tmp_path):
    home = Home(root=tmp_path)
    tree = Tree()
    tree.add("a", regular(b"a"))
    layer = LayerStore(home, "squashfs", silent).from_key("python", "dependencies", "a lock", lambda: tree).layer
    assert kept_blobs(home) == {layer.blob.digest}
    (key,) = (home.cache / "layers").glob("*.key")
    os.utime(key, (1, 1))
    assert kept_blobs(home) == set()
    LayerStore(home, "squashfs", silent).from_key("python", "dependencies", "a lock", Tree)
    assert kept_blobs(home) == {layer.blob.digest}, "it was used again"


def test_layers_that_were_written_another_way_are_made_again(tmp_path, monkeypatch):
    home = Home(root=tmp_path)
    tree = Tree()
    tree.add("a", regular(b"a"))
    made = []

    def compose():
        LayerStore(home, "squashfs", silent).from_key(
            "python", "dependencies", "a lock", lambda: made.append(1) or tree
        )
        return len(made)

    assert [compose(), compose()] == [1, 1]
    monkeypatch.setitem(PACKING, "squashfs", 0)
    assert [compose(), compose()] == [2, 2]


PARTLY = (
    "name: small\ntitle: Small\nauthor: a\nversion: 1.0\nrequire: [python]\n"
    "files:\n  /main.py: main.py\n  /part: part\n"
)


@pytest.mark.parametrize(
    ("files", "flags", "added"),
    [
        ({"clock.py": "import zoneinfo\n"}, (), True),
        ({}, ("--env", "TZ=Europe/Ljubljana"), True),
        ({}, ("--env", "TZ=UTC"), False),
        ({".venv/lib/clock.py": "import zoneinfo\n"}, (), False),
        ({"meta/package.yaml": PARTLY, "tool.py": "import zoneinfo\n"}, (), False),
        ({"meta/package.yaml": PARTLY, "main.py": "import zoneinfo\n"}, (), True),
    ],
)
def test_time_zones_are_there_where_they_are_used(drumhead, project, files, flags, added):
    write_files(project, files)
    done = drumhead.run("package", "compose", "t/zones", "-C", project, *flags)
    assert done.returncode == 0, done.stderr
    assert ("tzdata was added" in done.stderr) is added
    layers = [layer.name.partition(" ")[0] for layer in ImageStore(drumhead.home).find("t/zones").layers]
    assert ("tzdata" in layers) is added


@pytest.mark.parametrize(
    ("files", "added"),
    [
        ({"inhouse.py": "from zoneinfo import ZoneInfo\nSTART = ZoneInfo('UTC')\n"}, True),
        ({"inhouse.py": "from zoneinfo import ZoneInfo\nEND = ZoneInfo('UTC')\n", "tzdata/zoneinfo/UTC": ""}, False),
    ],
)
def test_time_zones_are_there_where_a_dependency_uses_them(drumhead, project, files, added):
    (project / "wheels").mkdir()
    wheel, digest = write_wheel(project / "wheels", files)
    write_files(project, {"requirements.txt": f"./wheels/{wheel.name} --hash=sha256:{digest}\n"})
    for _ in range(2):
        done = drumhead.run("package", "compose", "t/wheel", "-C", project)
        assert done.returncode == 0, done.stderr
        assert ("tzdata was added for the time zones of inhouse" in done.stderr) is added
        layers = [layer.name.partition(" ")[0] for layer in ImageStore(drumhead.home).find("t/wheel").layers]
        assert ("tzdata" in layers) is added


def test_an_edit_that_keeps_size_and_time_is_found_without_update(drumhead, project):
    compose = ("package", "compose", "t/quiet", "-C", project)
    drumhead(*compose)
    facts = (project / "main.py").stat()
    (project / "main.py").write_text((project / "main.py").read_text().replace("hello", "HELLO"))
    os.utime(project / "main.py", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    before = listing(drumhead, "t/quiet")["main.py"]
    drumhead(*compose)
    assert listing(drumhead, "t/quiet")["main.py"] != before


@pytest.mark.slow
@pytest.mark.parametrize("fs", ["squashfs", "erofs"])
def test_the_same_inputs_give_the_same_bytes(drumhead, project, tmp_path, fs):
    """Compose in another directory, another store, at another time and umask: all bytes of the image must be equal."""
    other = Drumhead(Home(root=tmp_path / "other-home"))
    shutil.copytree(drumhead.home.packages, other.home.packages)
    other.home.blobs.mkdir(parents=True)
    for record in PackageStore(drumhead.home).list():
        for digest in record.blobs:
            shutil.copy(drumhead.home.blobs / digest, other.home.blobs)
    elsewhere = tmp_path / "else/where"
    shutil.copytree(project, elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(path.stat().st_mode | 0o020)
    if fs == "erofs":  # without Python: this case only tests the writer, and the other case has Python
        for root in (project, elsewhere):
            (root / "meta/run.yaml").unlink()
            manifest = (root / "meta/package.yaml").read_text()
            (root / "meta/package.yaml").write_text(manifest.replace("- python", "- cli"))
    name = f"t/same-{fs}"
    drumhead("package", "compose", name, "-C", project, "--fs", fs)
    other("package", "compose", name, "-C", elsewhere, "--fs", fs)
    one, two = (ImageStore(command.home).find(name) for command in (drumhead, other))
    assert encode(one) == encode(two)
    for layer in one.layers:
        assert layer.filesystem == fs
        assert (drumhead.home.blobs / layer.blob.digest).read_bytes() == (
            other.home.blobs / layer.blob.digest
        ).read_bytes()


@pytest.mark.slow
def test_composing_is_quick(drumhead, project):
    """Compose from a warm store and after one edit; compare the best of five processor times with an idle command."""
    write_files(project, {f"many/{number}.py": f"x = {number}\n" for number in range(300)})
    compose = ("package", "compose", "t/quick", "-C", project)
    drumhead(*compose)
    nothing, whole, update = [], [], []
    for number in range(5):
        nothing.append(cpu_seconds(lambda: drumhead("--version")))
        (project / "main.py").write_text(f"print({number})\n")
        update.append(cpu_seconds(lambda: drumhead(*compose, "--update")))
        shutil.rmtree(drumhead.home.images / "t/quick")
        whole.append(cpu_seconds(lambda: drumhead(*compose)))
    assert min(update) < 4 * min(nothing), (nothing, update)
    assert min(whole) < 6 * min(nothing), (nothing, whole)


def cpu_seconds(call):
    """Return the processor time of the commands that `call` runs, which other programs affect less than elapsed
    time."""
    before = os.times()
    call()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_what_cannot_run_is_refused(drumhead, project, monkeypatch):
    run = project / "meta/run.yaml"
    compose = ("package", "compose", "t/refused", "-C", project)
    run.write_text("runtime: native\nconfig_set:\n  a:\n    bootcmd: /nothing here\n")
    assert "config set a starts /nothing, which is not in the image" in drumhead.refused(*compose, status=2)
    run.write_text("runtime: native\nconfig_set:\n  a:\n    base: cli:cli\n")
    refused = drumhead.refused(*compose, status=2)
    assert "meta/run.yaml:4: package cli is not required; add it to require" in refused
    run.write_text("runtime: native\nconfig_set:\n  a:\n    base: small:b\n  b:\n    bootcmd: /x\n")
    assert "meta/run.yaml:4: base must name a config set of another package" in drumhead.refused(*compose, status=2)
    run.write_text("runtime: native\nconfig_set:\n  a:\n    base: cli:x\n")
    assert "no config set x; it has cli" in drumhead.refused(*compose, "--require", "cli", status=2)
    run.unlink()
    assert "did you mean python?" in drumhead.refused(*compose, "--require", "pyton", status=3)
    assert "does not read rofs" in drumhead.refused(*compose, "--fs", "rofs", status=2)
    assert "is not a valid size" in drumhead.refused(*compose, "--size", "big", status=2)
    monkeypatch.chdir(project)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("sock")
        assert "sock is not a file, directory or symbolic link" in drumhead.refused(*compose, status=5)
    assert "not an image name" in drumhead.refused("package", "compose", "../x", "-C", project, status=2)


@pytest.mark.slow
def test_a_native_program_gets_the_libraries_that_it_needs(drumhead, tmp_path):
    project = write_files(
        tmp_path / "native",
        {
            "meta/package.yaml": "name: native\ntitle: N\nauthor: a\n",
            "meta/run.yaml": "runtime: native\nconfig_set:\n  ls:\n    bootcmd: /true\n",
        },
    )
    shutil.copy("/bin/true", project / "true")
    drumhead("package", "compose", "t/native", "-C", project)
    files = listing(drumhead, "t/native", "libraries")
    assert {path for path, node in files.items() if node.kind == "file"} == {
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib64/ld-linux-x86-64.so.2",
    }


def test_deleting_an_image_frees_what_nothing_else_needs(drumhead, project):
    for name in ("t/one", "t/two"):
        drumhead("package", "compose", name, "-C", project)
    write_files(project, {"big.bin": os.urandom(300_000)})
    drumhead("package", "compose", "t/two", "-C", project)
    layers = {name: ImageStore(drumhead.home).find(name).layers for name in ("t/one", "t/two")}
    drumhead("rmi", "t/two")
    assert not (drumhead.home.blobs / layers["t/two"][-1].blob.digest).exists()
    assert all((drumhead.home.blobs / layer.blob.digest).is_file() for layer in layers["t/one"])
    assert "there is no image t/two" in drumhead.refused("info", "t/two", status=3)


def test_collect_shows_what_an_image_would_hold(drumhead, project):
    out = drumhead("package", "collect", "-C", project)
    assert re.match(r"\d+ files in ", out)
    assert (project / "mpm-pkg/main.py").read_text() == (project / "main.py").read_text()
    assert (project / "mpm-pkg/usr/bin/python3.11").stat().st_size > 1_000_000
    assert "is not empty" in drumhead.refused("package", "collect", "-C", project, status=5)


def test_a_project_may_lie_below_a_directory_whose_name_is_not_utf_8(drumhead, project, tmp_path):
    odd = project.rename(tmp_path / os.fsdecode(b"\xff"))
    drumhead("package", "compose", "t/odd", cwd=odd)
    assert "nothing changed" in drumhead("package", "compose", "t/odd", "--update", cwd=odd)
    drumhead("rmi", "t/odd")


async def test_two_may_collect_one_project_at_once(drumhead, project, tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    await asyncio.gather(*(asyncio.to_thread(drumhead, "package", "collect", out, "-C", project) for out in outs))
    assert all((out / "main.py").read_text() == (project / "main.py").read_text() for out in outs)


@pytest.mark.slow
def test_init_and_the_runtimes(empty, tmp_path):
    empty("package", "init", tmp_path, "--name", "x", "--runtime", "node", "--require", "cli")
    assert (tmp_path / "meta/package.yaml").read_text().startswith("name: x\n")
    assert "already exists" in empty.refused("runtime", "init", tmp_path, "-r", "python", status=5)
    empty("runtime", "init", tmp_path, "-r", "python", "--force")
    assert (tmp_path / "meta/run.yaml").read_text() == empty("runtime", "preview", "-r", "python")
    assert [runtime["runtime"] for runtime in empty.json("runtime", "list")] == ["native", "node", "python"]


@pytest.mark.slow
def test_the_seeds_node_project_composes_unchanged(drumhead, tmp_path):
    """Compose the seed's node project with its own package.yaml and no run.yaml; run it as in the tutorial."""
    project = write_files(
        tmp_path / "node-micro",
        {
            "meta/package.yaml": (
                "name: node-micro\ntitle: Node Microservices\nauthor: lemmy\n"
                "require:\n- eu.mikelangelo-project.app.node-4.2.6\n"
            ),
            "keyvaluestore.js": "console.log(require('left').pad('8000', 6), process.argv[2])",
            "node_modules/left/package.json": '{"name": "left", "version": "1.0.0", "main": "left.js"}',
            "node_modules/left/left.js": "exports.pad = (text, n) => text.padStart(n, '.');",
        },
    )
    drumhead.package("node")
    done = drumhead.run("package", "compose", "node-micro/tutorial", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "eu.mikelangelo-project.app.node-4.2.6 is an old name" in done.stderr
    assert "Command line set to: ''" in done.stdout
    (project / "keyvaluestore.js").write_text("console.log('edited', require('left').pad(process.argv[2], 4))")
    again = drumhead("package", "compose", "--update", "node-micro/tutorial", cwd=project)
    assert again.splitlines()[0] == "/keyvaluestore.js: edited"
    run = drumhead("run", "-e", "/node keyvaluestore.js x", "-i", "node-micro/tutorial", "node-micro-keyvaluestore")
    assert "edited ...x" in run
    drumhead("delete", "node-micro-keyvaluestore")


@pytest.mark.parametrize("target", [None, os.fsdecode(b"not \xff text")])
def test_a_name_that_is_no_text_is_refused(drumhead, project, target):
    odd = project / ("link" if target else os.fsdecode(b"not \xff text"))
    odd.symlink_to(target) if target else odd.touch()
    said = drumhead.refused("package", "compose", "t/odd", "-C", project, status=5)
    assert "is not UTF-8; rename or ignore it" in said
    assert "\\udcff" in said or "link" in said
