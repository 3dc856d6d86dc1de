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
from drumhead.package import signing
from drumhead.package.records import Package
from drumhead.package.remote.http_directory import write_directory
from drumhead.package.store import PackageStore
from drumhead.records import Image, Kernel
from drumhead.tree import Tree, regular
from support.guests.composing import Drumhead, write_files

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


@pytest.fixture
def sender(tmp_path):
    """Return a home with a signing key and one package named tool."""
    command = Drumhead(Home(root=tmp_path / "sender"))
    tree = Tree()
    tree.add("usr/bin/tool", regular(b"a tool", 0o755))
    package = Package(
        name="tool", version="1", kind="tool", description="x", created="2026-01-01T00:00:00Z", archive="0" * 64,
        archive_size=0, unpacked_size=0,
    )  # fmt: skip
    PackageStore(command.home).add(tree, package)
    command.public = command("key", "create").strip()
    return command


def test_a_signing_key_is_its_owners_alone(sender):
    assert sender.home.signing_key.stat().st_mode & 0o777 == 0o600
    assert sender("key", "show").strip() == sender.public
    assert "exists" in sender.refused("key", "create", status=5)
    sender.home.signing_key.chmod(0o644)
    assert "other users can read" in sender.refused("key", "show", status=5)


async def test_packages_that_are_pushed_at_once_are_all_in_the_index(empty, tmp_path):
    store, names = PackageStore(empty.home), [f"tool-{number}" for number in range(8)]
    for name in names:
        tree = Tree()
        tree.add("usr/bin/tool", regular(name.encode() * 100_000, 0o755))
        package = Package(
            name=name, version="1", kind="tool", description="x", created="2026-01-01T00:00:00Z", archive="0" * 64,
            archive_size=0, unpacked_size=0,
        )  # fmt: skip
        store.add(tree, package)
    packed = [store.pack(package) for package in store.list()]
    await asyncio.gather(*(write_directory(tmp_path / "www", [package], store.blobs) for package in packed))
    index = json.loads((tmp_path / "www/index.json").read_bytes())
    assert [record["name"] for record in index] == names


async def test_what_a_remotes_key_signed_is_pulled_and_nothing_else(sender, empty, serve, tmp_path):
    directory = tmp_path / "www"
    await asyncio.to_thread(sender, "package", "push", "tool", "--to", directory)
    changes = {}

    def change(path, body):
        if not path.endswith("index.json"):
            return body
        (record,) = json.loads(body)
        return json.dumps([record | changes]).encode()

    url = await serve(directory, change=change)
    await asyncio.to_thread(empty, "remote", "add", "signed", url, "--key", sender.public)
    pull = ("package", "pull", "tool")
    (signature,) = (record["signature"] for record in json.loads((directory / "index.json").read_bytes()))
    forged = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    for changed, said in (
        ({"signature": ""}, "is not signed"),
        ({"signature": "?"}, "is not signed with the key of its remote"),
        ({"signature": forged}, "is not signed with the key of its remote"),
        ({"version": "2"}, "is not signed with the key of its remote"),
        ({"description": "y"}, "is not signed with the key of its remote"),
        ({"config_sets": {"harm": {"argv": ["/bin/sh"]}}}, "is not signed with the key of its remote"),
        ({"layers": []}, "is not signed with the key of its remote"),
    ):
        changes.clear()
        changes.update(changed)
        assert said in await asyncio.to_thread(empty.refused, *pull, status=6), changed
    assert not list(empty.home.packages.rglob("*.json"))
    changes.clear()
    done = await asyncio.to_thread(empty.run, *pull)
    assert (done.returncode, "not verified" in done.stderr) == (0, False), done.stderr


async def test_a_version_that_cannot_be_sorted_is_not_pulled(sender, empty, serve, tmp_path):
    await asyncio.to_thread(sender, "package", "push", "tool", "--to", tmp_path / "www")

    def change(path, body):
        return body.replace(b'"version": "1"', b'"version": "main:1"') if path.endswith("index.json") else body

    await asyncio.to_thread(empty, "remote", "add", "web", await serve(tmp_path / "www", change=change))
    said = await asyncio.to_thread(empty.refused, "package", "pull", "tool", status=6)
    assert "package tool: a version has at most 128 bytes" in said
    assert not list(empty.home.packages.rglob("*.json"))


async def test_another_key_is_refused_and_no_key_is_mentioned(sender, empty, serve, tmp_path):
    await asyncio.to_thread(sender, "package", "push", "tool", "--to", tmp_path / "www")
    url = await serve(tmp_path / "www")
    other = Drumhead(Home(root=tmp_path / "other"))
    key = (await asyncio.to_thread(other, "key", "create")).strip()
    await asyncio.to_thread(empty, "remote", "add", "web", url, "--key", key)
    await asyncio.to_thread(empty.refused, "package", "pull", "tool", status=6)
    await asyncio.to_thread(empty, "remote", "remove", "web")
    await asyncio.to_thread(empty, "remote", "add", "web", url)
    done = await asyncio.to_thread(empty.run, "package", "pull", "tool")
    assert done.returncode == 0
    assert "tool is not verified: the remote web has no key." in done.stderr
    assert "is not a public key" in empty.refused("remote", "add", "x", url, "--key", "AAAA", status=2)


async def test_a_signed_package_travels_by_a_registry(sender, empty, registry):
    url = f"oci+http://{registry}/team"
    await asyncio.to_thread(sender, "remote", "add", "registry", url)
    await asyncio.to_thread(empty, "remote", "add", "registry", url, "--key", sender.public)
    await asyncio.to_thread(sender, "package", "push", "tool")
    (pulled,) = await asyncio.to_thread(empty.json, "package", "pull", "tool")
    assert pulled["signature"]
    sender.home.signing_key.unlink()
    await asyncio.to_thread(sender, "package", "push", "tool")
    assert "is not signed" in await asyncio.to_thread(empty.refused, "package", "pull", "tool", status=6)


def test_a_signature_outlives_fields_that_are_added(home):
    """Verify a record as a later version may define it, with one more field that is not used."""
    signing.create_key(home)
    later = msgspec.defstruct("Package", [("more", tuple[str, ...], ())], bases=(Package,), frozen=True, kw_only=True)
    fields = {
        "name": "a", "version": "1", "kind": "tool", "description": "", "created": "", "archive": "0" * 64,
        "archive_size": 1, "unpacked_size": 1,
    }  # fmt: skip
    signed = signing.sign(home, Package(**fields))
    signing.verify(signing.public_key(home), later(**fields, signature=signed.signature))
    with pytest.raises(DrumheadError):
        signing.verify(signing.public_key(home), later(**fields, signature=signed.signature, more=("x",)))


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
