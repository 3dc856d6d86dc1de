"""Test packages of the user's projects: files, requirements, and config sets inherited over several levels."""

import io
import random
import re
import shutil
import socket
import tarfile
import tracemalloc

import pytest
import zstandard

from drumhead.blobs import file_digest
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.package import store as package_store
from drumhead.package.records import Package
from drumhead.package.store import PackageStore
from drumhead.tree import Tree, host_file, regular
from support.guests.composing import listing, write_files

HEAD = "title: T\nauthor: somebody\nversion: 1.0\n"


@pytest.fixture
def family(drumhead, project, tmp_path, locked):  # noqa: F811
    """Make a package, a package that requires it, and a project that requires both."""
    write_files(project, {"requirements.txt": locked})
    drumhead("package", "build", cwd=project)
    second = write_files(
        tmp_path / "second",
        {
            "meta/package.yaml": f"name: own/second\n{HEAD}require: [small]\n",
            "meta/run.yaml": "runtime: native\nconfig_set:\n  middle: {base: 'small:module', env: {A: 2, B: 2}}\n",
            "second.txt": "2",
        },
    )
    drumhead("package", "build", "-C", second)
    return write_files(
        tmp_path / "third",
        {
            "meta/package.yaml": f"name: third\n{HEAD}require: [own/second]\n",
            "meta/run.yaml": "runtime: native\nconfig_set:\n"
            "  top: {base: 'own/second:middle', env: {B: 3, PYTHONPATH: /}, cwd: /part}\n",
        },
    )


def test_a_project_becomes_a_package_that_others_inherit_from(drumhead, family):
    drumhead("package", "compose", "t/family", "-C", family)
    facts = drumhead.json("info", "t/family")
    top = {
        "argv": ["/usr/bin/python3", "-m", "part.one"],
        "env": {"A": "2", "B": "3", "DEPTH": "3", "PYTHONPATH": "/"},
        "cwd": "/part",
    }
    assert facts["commands"]["top"] == top
    assert facts["commands"]["middle"]["env"] == {"A": "2", "B": "2", "DEPTH": "3"}
    assert set(facts["commands"]) == {"top", "middle", "hello", "module"}
    assert facts["default"] == "top"
    described = drumhead("package", "describe", "small")
    for path in ("/main.py", "/usr/bin/tool.sh", "/__pycache__/main.cpython-311.pyc", "dist-packages/idna/core.pyc"):
        assert path in described
    assert "/meta" not in described
    assert "bin" in listing(drumhead, "t/family")
    names = [layer["name"] for layer in facts["layers"]]
    assert names.index("small 1.0") < names.index("own/second 1.0")


def test_a_config_set_of_a_required_package_can_be_the_default(drumhead, family):
    drumhead("package", "compose", "t/family-run", "-C", family, "--run", "hello", "--require", "cli")
    assert drumhead.json("info", "t/family-run")["default"] == "hello"
    drumhead("package", "compose", "t/family-run", "-C", family, "--run", "cli", "--require", "cli")
    assert drumhead.json("info", "t/family-run")["commands"]["cli"]["argv"] == ["/usr/bin/sh"]


@pytest.mark.slow
def test_an_inherited_config_set_runs(drumhead, family):
    drumhead("package", "compose", "t/family-boot", "-C", family)
    out = drumhead("run", "-i", "t/family-boot", "family-boot", "--run", "hello")
    drumhead("delete", "family-boot")
    assert "hello world" in out


def test_a_package_does_not_take_the_name_of_a_recipe(drumhead, tmp_path):
    write_files(tmp_path / "p", {"meta/package.yaml": f"name: python\n{HEAD}"})
    assert "choose another name" in drumhead.refused("package", "build", "-C", tmp_path / "p", status=5)


def test_an_application_of_debian_gets_its_libraries_and_gives_its_config_set(drumhead, tmp_path):
    recipe = (
        "name: own-redis\nkind: application\ndescription: Redis\nversion_of: redis-server\n"
        "debian: [redis-server, redis-tools]\ninclude: [usr/bin/redis-server, usr/bin/redis-check-rdb]\n"
        "config_sets:\n  redis: {argv: [/usr/bin/redis-server, --port, '6379']}\n"
    )
    write_files(tmp_path, {"redis.yaml": recipe, "p/meta/package.yaml": f"name: p\n{HEAD}require: [own-redis]\n"})
    drumhead("package", "build", "--recipe", tmp_path / "redis.yaml")
    described = drumhead("package", "describe", "own-redis")
    for library in ("libjemalloc.so.2", "liblzf.so.1", "libssl.so.3", "ld-linux-x86-64.so.2"):
        assert f"/{library}\n" in described
    done = drumhead.run("package", "compose", "t/redis", "-C", tmp_path / "p", "--run", "redis")
    assert done.returncode == 0, done.stderr
    assert "needs" not in done.stderr
    assert drumhead.json("info", "t/redis")["default"] == "redis"


def test_a_dead_remote_does_not_stop_what_can_be_built_here(drumhead, empty, tmp_path):
    empty.home.root.mkdir(parents=True)
    for shared in ("blobs", "packages", "cache"):
        shutil.copytree(getattr(drumhead.home, shared), getattr(empty.home, shared))
    shutil.rmtree(empty.home.packages / "ca-certificates")
    with socket.socket() as bound:  # a port without a listener
        bound.bind(("127.0.0.1", 0))
        empty("remote", "add", "dead", f"http://127.0.0.1:{bound.getsockname()[1]}/packages")
        write_files(tmp_path / "p", {"meta/package.yaml": f"name: p\n{HEAD}require: [ca-certificates]\n"})
        done = empty.run("package", "compose", "t/dead", "-C", tmp_path / "p")
        assert done.returncode == 0, done.stderr
        assert "ca-certificates is built here instead" in done.stderr
        assert re.search(r"^package ca-certificates \S+ was built here$", done.stderr, re.MULTILINE)
        write_files(tmp_path / "p", {"meta/package.yaml": f"name: p\n{HEAD}require: [own-thing]\n"})
        empty.refused("package", "compose", "t/dead", "-C", tmp_path / "p", status=4)


MIB = 1 << 20


def record(tree):
    return Package(
        name="own", version="1", kind="libraries", description="", created="", archive="", archive_size=0,
        unpacked_size=tree.size,
    )  # fmt: skip


def test_a_large_package_is_never_in_memory_as_a_whole(tmp_path):
    """Build a package of a model, and read it for an image."""
    store, tree, model = PackageStore(Home(root=tmp_path / "home")), Tree(), tmp_path / "model.gguf"
    model.write_bytes(random.Random(5).randbytes(24 * MIB) + b"end")
    tree.add("model.gguf", host_file(model, 0o644, model.stat().st_size, file_digest(model)))
    tree.add("small", regular(b"text"))
    tracemalloc.start()
    try:
        package = store.add(tree, record(tree))
        entry = store.tree(package)["model.gguf"]
        with (tmp_path / "copy").open("wb") as copy:
            copy.writelines(entry.chunks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    assert (tmp_path / "copy").read_bytes() == model.read_bytes()
    assert (entry.size, entry.digest) == (model.stat().st_size, file_digest(model))
    assert entry.starts_with(model.read_bytes()[:4])
    with tarfile.open(fileobj=io.BytesIO(zstandard.decompress(store.blobs.read(package.archive), MIB * 25))) as archive:
        assert archive.getnames() == ["model.gguf", "small"]
    assert [path.name for path in (tmp_path / "home/blobs/sha256").iterdir()] == [package.archive]


def test_a_package_may_have_many_small_files(tmp_path, monkeypatch):
    """Their headers take more than their contents, and compress better."""
    monkeypatch.setattr(package_store, "SMALL", 64 << 10)
    store, tree = PackageStore(Home(root=tmp_path / "home")), Tree()
    for number in range(1000):
        tree.add(f"data/straße-{number}.txt", regular(b"%d" % number))
    assert store.tree(store.add(tree, record(tree))).digest() == tree.digest()


def test_a_package_that_no_store_would_unpack_is_not_built(tmp_path, monkeypatch):
    """A file of zeros is like a decompression bomb."""
    monkeypatch.setattr(package_store, "SMALL", MIB)
    store, tree = PackageStore(Home(root=tmp_path / "home")), Tree()
    tree.add("zeros", regular(bytes(4 * MIB)))
    with pytest.raises(DrumheadError, match="own takes 4 MiB.*ones of zeros") as refused:
        store.add(tree, record(tree))
    assert refused.value.code is ErrorCode.UNSUPPORTED
    assert store.list() == []
    assert list((tmp_path / "home").rglob("*/sha256/*")) == []
