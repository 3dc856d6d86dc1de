"""Test malicious packages, projects and remotes."""

import asyncio
import hashlib
import io
import json
import lzma
import os
import re
import tarfile
import tracemalloc
from pathlib import Path

import msgspec
import pytest
import zstandard
from aiohttp import web
from msgspec.structs import replace

from drumhead.blobs import Blobs
from drumhead.debian import deb
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.image import store as image_store
from drumhead.image.collect import _merge
from drumhead.image.layers.scan import Scan
from drumhead.image.store import ImageStore
from drumhead.manifest.project import read_project
from drumhead.package.records import Package
from drumhead.package.store import PackageStore
from drumhead.records import Image, Kernel
from support.guests.composing import write_files

pytestmark = pytest.mark.slow

MIB = 1 << 20


def tar_of(*members):
    """Return a tar of (name, type, text) members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
            else:
                info.linkname = text
                archive.addfile(info)
    return out.getvalue()


def zeros_packed(size):
    """Return a compressed tar with one file of `size` zeros, made without holding it in memory."""
    packed = io.BytesIO()
    with zstandard.ZstdCompressor(level=3).stream_writer(packed, closefd=False) as out:
        info = tarfile.TarInfo("zeros")
        info.size = size
        out.write(info.tobuf(tarfile.PAX_FORMAT))
        block = bytes(8 * MIB)
        for _ in range(size // len(block)):
            out.write(block)
        out.write(bytes(1024))
    return packed.getvalue()


def stored(home, archive, **changes):
    """Return a package whose archive is in the store of `home`."""
    store = PackageStore(home)
    blob = store.blobs.put(archive)
    package = Package(
        name="harm", version="1", kind="libraries", description="", created="", archive=blob.digest,
        archive_size=blob.size, unpacked_size=0,
    )  # fmt: skip
    return store, replace(package, **changes)


@pytest.fixture
def home(tmp_path):
    return Home(root=tmp_path / "home")


@pytest.mark.parametrize("claims", [0, 6 << 30, 1 << 39])
def test_a_small_package_does_not_unpack_to_gigabytes(home, claims):
    """Unpack with a limit of half a gigabyte above the process's memory, which must not be exceeded."""
    archive = zeros_packed(1 << 30)
    assert len(archive) < 200_000
    store, package = stored(home, archive, unpacked_size=claims)
    if pid := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return
    import resource

    held = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (held + (1 << 29), held + (1 << 29)))
    try:
        store.tree(package)
    except DrumheadError as error:
        os._exit(0 if error.code is ErrorCode.UNVERIFIED else 1)
    except MemoryError:
        os._exit(2)
    os._exit(3)


def sparse(size):
    """Return a tar with one file that consists of a hole."""
    info = tarfile.TarInfo("hole")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": f"{size},0",
                        "GNU.sparse.size": str(size)}  # fmt: skip
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def linked(size, copies):
    """Return a tar with one file and many hard links to it, each of which becomes a copy in a layer."""
    links = [(f"copy-{number}", tarfile.LNKTYPE, "file") for number in range(copies)]
    return tar_of(("file", tarfile.REGTYPE, bytes(size)), *links)


@pytest.mark.parametrize("archive", [lambda: sparse(1 << 40), lambda: linked(MIB, 1000)], ids=["holes", "hard links"])
def test_a_package_does_not_multiply_what_its_archive_brings(home, archive):
    store, package = stored(home, zstandard.compress(archive()))
    with pytest.raises(DrumheadError) as caught:
        store.tree(package)
    assert caught.value.code in (ErrorCode.UNVERIFIED, ErrorCode.UNSUPPORTED)


def nested(count):
    """Return a tar of `count` directories whose paths name a hundred directories each."""
    return tar_of(*((f"{number}/" + "a/" * 99, tarfile.DIRTYPE, "") for number in range(count)))


def test_directories_that_only_paths_name_count_as_well(home):
    store, package = stored(home, zstandard.compress(nested(10)))
    assert len(store.tree(package)) == 1000
    store, package = stored(home, zstandard.compress(nested(4000)))
    assert package.archive_size < 40_000
    tracemalloc.start()
    try:
        with pytest.raises(DrumheadError, match="unpacks to more") as caught:
            store.tree(package)
        assert tracemalloc.get_traced_memory()[1] < 96 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.code is ErrorCode.UNVERIFIED


def debian(name, packed):
    return b"!<arch>\n" + name.ljust(48) + str(len(packed)).encode().ljust(10) + b"`\n" + packed


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        (b"data.tar.xz", lambda: lzma.compress(bytes(48 * MIB), preset=0)),
        (b"data.tar.xz", lambda: b"".join(lzma.compress(bytes(MIB), preset=0) for _ in range(48))),
        (b"data.tar.zst", lambda: zstandard.compress(bytes(48 * MIB))),
        (b"data.tar", lambda: sparse(1 << 40)),
        (b"data.tar", lambda: tar_of(*((f"d{number}", tarfile.DIRTYPE, "") for number in range(200)))),
        (b"data.tar", lambda: nested(2)),
    ],
    ids=["xz", "many xz", "zstd", "holes", "many entries", "many parents"],
)
def test_a_package_of_debian_unpacks_to_so_much_and_no_more(tmp_path, monkeypatch, name, pack):
    monkeypatch.setattr(deb, "MAX_UNPACKED", 32 * MIB)
    monkeypatch.setattr(deb, "MAX_ENTRIES", 100)
    (tmp_path / "bomb.deb").write_bytes(debian(name, pack()))
    tracemalloc.start()
    try:
        with pytest.raises(DrumheadError, match="unpacks to more") as caught:
            deb.read_deb(tmp_path / "bomb.deb")
        assert tracemalloc.get_traced_memory()[1] < 80 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.code is ErrorCode.UNVERIFIED


@pytest.mark.parametrize(
    "kernel",
    [lzma.compress(bytes(4 * MIB), preset=0), b"no xz", lzma.compress(b"x")[:-9]],
    ids=["bomb", "no kernel", "cut off"],
)
def test_the_kernel_of_an_image_does_not_unpack_to_more_than_a_kernel(home, monkeypatch, kernel):
    monkeypatch.setattr(image_store, "_LARGEST_KERNEL", 2 * MIB)
    blob = Blobs(home).put(kernel)
    made = Kernel(package="harm", version="1", vmlinux=blob, initrd=None)
    image = Image(name="harm", title="", version="1", guest="linux", kernel=made, layers=())
    with pytest.raises(DrumheadError) as caught:
        ImageStore(home).files(image)
    assert caught.value.code is ErrorCode.UNVERIFIED
    assert not any((home.cache / "kernels").glob("*"))


@pytest.mark.parametrize(
    "members",
    [
        [("../escape", tarfile.REGTYPE, b"x")],
        [("/../escape", tarfile.REGTYPE, b"x")],
        [("a", tarfile.SYMTYPE, "/etc"), ("a/passwd", tarfile.REGTYPE, b"x")],
        [("a", tarfile.LNKTYPE, "../../etc/passwd")],
        [("a", tarfile.CHRTYPE, "")],
        [("a", tarfile.FIFOTYPE, "")],
        [("x" * 300, tarfile.REGTYPE, b"x")],
        [("x/" * 200 + "y", tarfile.REGTYPE, b"x")],
        [("a", tarfile.SYMTYPE, "x/" * 3000)],
    ],
)
def test_paths_and_kinds_of_an_archive_are_checked(home, members):
    store, package = stored(home, zstandard.compress(tar_of(*members)), unpacked_size=100)
    with pytest.raises(DrumheadError):
        store.tree(package)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("x" * 300, tarfile.REGTYPE, b"x"), "a name in the archive"),
        (("x/" * 200 + "y", tarfile.REGTYPE, b"x"), "too deep"),
        (("a", tarfile.SYMTYPE, "x/" * 3000), "too deep"),
    ],
)
def test_paths_of_a_package_of_debian_are_checked(tmp_path, member, said):
    (tmp_path / "long.deb").write_bytes(debian(b"data.tar", tar_of(member)))
    with pytest.raises(DrumheadError, match=said) as caught:
        deb.read_deb(tmp_path / "long.deb")
    assert caught.value.code is ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    "record",
    [
        {"name": "../../escape"},
        {"name": "a/../b"},
        {"version": "1\x1b[2J"},
        {"version": "1\x00"},
        {"archive": "../../../etc/passwd"},
        {"archive_size": -1},
        {"unpacked_size": 1 << 50},
    ],
)
def test_a_record_is_checked(record):
    fields = {
        "name": "a", "version": "1", "kind": "tool", "description": "", "created": "", "archive": "0" * 64,
        "archive_size": 1, "unpacked_size": 1,
    }  # fmt: skip
    msgspec.json.decode(json.dumps(fields), type=Package)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(fields | record), type=Package)


MANIFEST = "name: harm\ntitle: x\nauthor: x\nversion: 1\n"


@pytest.mark.parametrize(
    "source", ["src/etcdir/shadow", "src/etcdir/", "src/etcdir", "src/inner/up/secret", "../secret", "/etc/shadow"]
)
def test_a_committed_link_brings_no_file_of_the_host(empty, tmp_path, source):
    (tmp_path / "secret").write_text("the host's")
    project = write_files(tmp_path / "project", {"meta/package.yaml": f"{MANIFEST}files:\n  /srv/got: {source}\n"})
    (project / "src" / "inner").mkdir(parents=True)
    (project / "src" / "etcdir").symlink_to("/etc")
    (project / "src" / "inner" / "up").symlink_to("../../..")
    if source.rstrip("/") == "src/etcdir":  # the image contains it as a link, whose target does not exist there
        tree = Scan(read_project(project), tmp_path, trust=False).tree()
        assert [(path, entry.kind) for path, entry in tree] == [("srv", "directory"), ("srv/got", "symlink")]
        return
    said = empty.refused("package", "collect", tmp_path / "out", "-C", project, status=2)
    assert "is not a file or directory of the project" in said


@pytest.mark.parametrize("name", ["package.yaml", "run.yaml"])
def test_a_manifest_is_no_link_to_a_file_of_the_host(empty, tmp_path, name):
    (tmp_path / "secret").write_text("root:the-hash:1")
    project = write_files(tmp_path / "project", {"meta/package.yaml": MANIFEST, "meta/run.yaml": "runtime: native\n"})
    (project / "meta" / name).unlink()
    (project / "meta" / name).symlink_to(tmp_path / "secret")
    said = empty.refused("package", "collect", tmp_path / "out", "-C", project, status=2)
    assert "leads out of the project" in said
    assert "the-hash" not in said


def test_a_layer_is_not_written_through_the_links_of_another(tmp_path):
    victim = write_files(tmp_path / "victim", {"passwd": "kept"})
    target, layer = tmp_path / "target", tmp_path / "layer"
    write_files(target, {"usr/lib/old": "old", "file": "a file", "tree/x": "x"})
    (target / "etc").symlink_to(victim)
    (target / "link").symlink_to(victim / "passwd")
    write_files(layer, {"etc/passwd": "new", "link": "new", "usr/lib/new": "new", "file/below": "new", "tree": "new"})
    (layer / "away").symlink_to(victim)
    _merge(layer, target)
    assert (victim / "passwd").read_text() == "kept"
    assert not (target / "etc").is_symlink()
    assert (target / "etc" / "passwd").read_text() == (target / "link").read_text() == "new"
    assert sorted(path.name for path in (target / "usr" / "lib").iterdir()) == ["new", "old"]
    assert (target / "file" / "below").read_text() == (target / "tree").read_text() == "new"
    assert (target / "away").is_symlink()


async def test_a_remote_without_end_is_given_up(empty):
    async def endless(request):
        if "catalog" in request.path:
            link = {
                "Link": f'<{request.path}?n=100&last={hashlib.md5(request.path_qs.encode()).hexdigest()}>; rel="next"'
            }
            return web.json_response({"repositories": []}, headers=link)
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"[" * (1 << 16))

    app = web.Application()
    app.router.add_get("/{path:.*}", endless)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        await asyncio.to_thread(empty, "remote", "add", "web", f"http://{address}/")
        assert "longer than" in await asyncio.to_thread(empty.refused, "package", "search", "x", status=6)
        await asyncio.to_thread(empty, "remote", "remove", "web")
        await asyncio.to_thread(empty, "remote", "add", "registry", f"oci+http://{address}/")
        done = await asyncio.to_thread(empty.run, "package", "search", "x")
        assert done.returncode == 0, "packages of other remotes are listed"
        assert "too many pages" in done.stderr
    finally:
        await runner.cleanup()
