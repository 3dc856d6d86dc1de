"""Test packages from recipes, and remotes: HTTP directories and a real registry (Debian's docker-registry)."""

import asyncio
import json
import re
import shutil
import socket
import struct

import pytest
from msgspec.structs import replace

from drumhead.blobs import file_digest
from drumhead.download import new_client
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import Home
from drumhead.package.kernel import LZ4_MAGIC, kernel_tree
from drumhead.package.recipe import known_recipes, read_recipe
from drumhead.package.records import Package, PackageRef
from drumhead.package.remote.registry import Registry, describe
from drumhead.package.remote.remotes import Remote, check_url, push_package, search_remotes, write_remotes
from drumhead.package.store import PackageStore, parse_ref
from drumhead.tree import Tree, regular
from support.guests.composing import FAST_LEVEL, Drumhead, write_files


def test_a_package_says_what_it_was_made_from(drumhead):
    facts = drumhead.json("package", "describe", "python")
    package = facts["package"]
    assert package["version"].startswith("3.11.2-")
    assert {"python3.11-minimal", "libc6", "libssl3", "libsqlite3-0"} <= {
        origin["name"] for origin in package["origins"]
    }
    assert all(re.fullmatch("[0-9a-f]{64}", origin["sha256"]) for origin in package["origins"])
    files = set(facts["files"])
    assert {"/usr/bin/python3.11", "/usr/lib64/ld-linux-x86-64.so.2", "/python3"} <= files
    assert "/usr/lib/python3.11/json/__init__.pyc" in files
    assert not [file for file in files if file.endswith(".py")]
    assert "Made from:" in drumhead("package", "describe", "python")


def test_the_kernel_package_can_be_booted_both_ways(drumhead):
    tree = PackageStore(drumhead.home).tree(drumhead.package("linux"))
    modules = [path for path, _ in tree if path.startswith("modules/")]
    assert modules == sorted(modules)
    order = {re.sub(r"modules/\d+-(.*)\.ko", r"\1", path): number for number, path in enumerate(modules)}
    assert order["virtio_ring"] < order["virtio_pci"]
    assert order["failover"] < order["net_failover"] < order["virtio_net"]
    assert tree["vmlinuz"].read()[0x202:0x206] == b"HdrS"
    assert tree["vmlinux.xz"].size < 7_700_000, "its type information is left out"


BZIMAGE = bytes(0x202) + b"HdrS" + bytes(0x42) + struct.pack("<II", 0, 30) + bytes(0xA00)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (BZIMAGE, "the kernel's payload is not LZ4"),
        (BZIMAGE[:0x206], "the kernel is damaged: unpack_from requires"),
        (
            BZIMAGE[:0xA00] + LZ4_MAGIC + struct.pack("<I", 16) + bytes(40),
            "the kernel is damaged: Decompression failed",
        ),
        (BZIMAGE[:0xA00] + LZ4_MAGIC + struct.pack("<I", 5) + b"\x40text" + bytes(17), "the kernel is damaged: "),
    ],
)
def test_a_damaged_kernel_is_refused(image, reason):
    files = Tree()
    files.add("boot/vmlinuz-6.1", regular(image))
    with pytest.raises(DrumheadError, match=reason):
        kernel_tree(files, ())


def test_every_recipe_has_a_demo():
    assert len(known_recipes()) >= 9
    assert all(recipe.demo for recipe in known_recipes().values())


def test_a_recipe_of_ones_own(drumhead, tmp_path):
    text = (
        "name: tree\nkind: tool\ndescription: Shows directories\nversion_of: tree\ndebian: [tree]\n"
        "include: [usr/bin/tree]\n"
    )
    (built,) = drumhead.json("package", "build", "--recipe", write_files(tmp_path, {"r.yaml": text}) / "r.yaml")
    again = Drumhead(Home(root=tmp_path / "other"))
    shutil.copytree(drumhead.home.cache / "debian", again.home.cache / "debian")
    (twice,) = again.json("package", "build", "--recipe", tmp_path / "r.yaml")
    assert twice == built
    write_files(tmp_path, {"r.yaml": text.replace("usr/bin/tree", "usr/bin/bush")})
    assert "no file matches usr/bin/bush" in drumhead.refused(
        "package", "build", "--recipe", tmp_path / "r.yaml", status=2
    )
    write_files(tmp_path, {"r.yaml": text + "inclde: []\n"})
    assert "inclde" in drumhead.refused("package", "build", "--recipe", tmp_path / "r.yaml", status=2)
    with pytest.raises(Exception, match="r.yaml"):
        read_recipe(write_files(tmp_path, {"r.yaml": "a: ["}) / "r.yaml")


def test_search_prints_the_seeds_columns(drumhead):
    lines = drumhead("package", "search", "python").splitlines()
    assert re.fullmatch(r"Name +Description +Version +Created", lines[0])
    assert re.fullmatch(r"python +Python 3\.11 .* +3\.11\.2-\S+ +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[1])
    done = drumhead.run("package", "search", "eu.mikelangelo-project.app.node-4.2.6")
    assert "old name" in done.stderr
    assert done.stdout.splitlines()[1].startswith("node ")
    assert [package["name"] for package in drumhead.json("package", "search", "shell")] == ["cli"]
    assert "cli" in drumhead("package", "list")


async def test_an_http_directory_is_a_remote(drumhead, empty, serve, tmp_path):
    directory = tmp_path / "www"
    pushed = await asyncio.to_thread(drumhead, "package", "push", "cli", "--to", directory)
    assert "pushed cli 1:1.35" in pushed
    url = await serve(directory)
    await asyncio.to_thread(empty, "remote", "add", "web", url)
    found = await asyncio.to_thread(empty.json, "package", "search", "cli")
    assert found[0]["version"].startswith("1:1.35")
    (pulled,) = await asyncio.to_thread(empty.json, "package", "pull", "osv.cli")
    assert pulled == drumhead.json("package", "describe", "cli")["package"]
    assert PackageStore(empty.home).tree(PackageStore(empty.home).find(parse_ref("cli"))).size > 1_000_000
    assert "read over HTTP only" in await asyncio.to_thread(empty.refused, "package", "push", "cli", status=5)
    assert "no remote has node" in await asyncio.to_thread(empty.refused, "package", "pull", "node", status=3)


@pytest.mark.parametrize("part", ["blobs", "index"])
async def test_what_a_remote_changed_is_refused(drumhead, empty, serve, tmp_path, part):
    await asyncio.to_thread(drumhead, "package", "push", "cli", "--to", tmp_path / "www")

    def change(path, body):
        if part == "index" and "index" in path:
            return re.sub(rb'"archive": "[0-9a-f]{64}"', b'"archive": "../../../../evil"', body)
        return body[:-1] + b"?" if part in path else body

    await asyncio.to_thread(empty, "remote", "add", "web", await serve(tmp_path / "www", change=change))
    status = 6 if part == "blobs" else 4
    await asyncio.to_thread(empty.refused, "package", "pull", "cli", status=status)
    assert not list(empty.home.blobs.glob("*"))


@pytest.mark.parametrize(
    "url", ["https://[::1/x", "https://h:99999/x", "https://h:x/y", "https:// /x", "https://h/x y", "oci://:5000/x"]
)
def test_a_remote_has_a_host_and_a_name(url):
    with pytest.raises(DrumheadError, match="must start with http"):
        check_url(Remote(name="one", url=url))
    for name in ("a\n", "bad name", "", "-a", "a/b", "a" * 64):
        with pytest.raises(DrumheadError, match="not a name for a remote"):
            check_url(Remote(name=name, url="https://h/x"))
    check_url(Remote(name="one", url="oci+http://[::1]:5000/x"))


@pytest.mark.slow
def test_remotes_are_added_listed_and_removed(empty):
    empty("remote", "add", "one", "https://one.test/packages")
    assert "the remote one already exists" in empty.refused("remote", "add", "one", "https://x.test", status=5)
    assert "must start with" in empty.refused("remote", "add", "two", "ftp://two.test", status=2)
    assert empty.json("remote", "list") == [{"name": "one", "url": "https://one.test/packages"}]
    empty("remote", "remove", "one")
    assert empty.json("remote", "list") == []
    assert "there is no remote one" in empty.refused("remote", "remove", "one", status=3)


async def test_a_registry_is_a_remote(drumhead, empty, registry, tmp_path):
    url = f"oci+http://{registry}/team/packages"
    sender = Drumhead(Home(root=tmp_path / "sender"))
    shutil.copytree(drumhead.home.packages / "cli", sender.home.packages / "cli")
    package = PackageStore(drumhead.home).find(parse_ref("cli"))
    archive = package.archive
    sender.home.blobs.mkdir(parents=True)
    for digest in package.blobs:
        shutil.copy(drumhead.home.blobs / digest, sender.home.blobs)
    for command in (sender, empty):
        await asyncio.to_thread(command, "remote", "add", "registry", url)
    for _ in range(2):
        assert "pushed cli" in await asyncio.to_thread(sender, "package", "push", "cli")
    found, *_ = await asyncio.to_thread(empty.json, "package", "search", "cli")
    (pulled,) = await asyncio.to_thread(empty.json, "package", "pull", f"cli@{found['version']}")
    assert pulled["archive"] == archive
    for digest in package.blobs:
        assert (empty.home.blobs / digest).read_bytes() == (drumhead.home.blobs / digest).read_bytes()
    stored = next((tmp_path / "registry").rglob(f"blobs/sha256/*/{archive}/data"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    (empty.home.blobs / archive).unlink()
    await asyncio.to_thread(empty.refused, "package", "pull", "cli", status=6)


@pytest.fixture
def stored(tmp_path):
    """Return a store and the record of a package that may be stored there."""
    store = PackageStore(Home(root=tmp_path / "home"))
    package = Package(
        name="own", version="2", kind="libraries", description="", created="", archive="0" * 64, archive_size=0,
        unpacked_size=0,
    )  # fmt: skip
    return store, store.add(Tree(), package)


@pytest.mark.parametrize("version", ["feature:1", "1" * 129, "1\x1b[2J", "1\n"])
def test_a_version_that_cannot_be_sorted_is_not_stored(stored, version):
    store, package = stored
    with pytest.raises(DrumheadError, match="^package own: a version has at most 128 bytes") as refused:
        store.add(Tree(), replace(package, version=version))
    assert refused.value.code is ErrorCode.UNVERIFIED
    assert store.list() == [package]


def test_a_stored_version_that_cannot_be_sorted_stops_nothing(stored):
    store, package = stored
    older = replace(package, version="feature:1")
    store.put(older)
    assert store.pack(older) == older
    assert {one.version for one in store.list()} == {"2", "feature:1"}
    assert store.find(parse_ref("own@feature:1")) == older


OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker.distribution"


@pytest.mark.parametrize("single", [f"{OCI}.manifest.v1+json", f"{DOCKER}.manifest.v2+json"], ids=["oci", "docker"])
async def test_other_artifacts_of_a_registry_stop_no_package(stored, registry, tmp_path, single):
    """Push a container image, alone and in an index for several processors, beside a package."""
    store, package = stored
    home, url = Home(root=tmp_path / "home"), f"http://{registry}"
    write_remotes(home, [Remote(name="one", url=f"oci+{url}/team")])
    await push_package(home, store, parse_ref("own"), "one")
    index = {f"{OCI}.manifest.v1+json": f"{OCI}.index.v1+json"}.get(single, f"{DOCKER}.manifest.list.v2+json")
    contents = b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'
    config = describe(contents, f"{OCI}.config.v1+json")
    fields = {"digest": config.digest, "size": config.size, "mediaType": config.media_type}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": single, "config": fields, "layers": []}).encode()
    about = {"digest": describe(manifest, single).digest, "size": len(manifest), "mediaType": single}
    about["platform"] = {"architecture": "amd64", "os": "linux"}
    several = json.dumps({"schemaVersion": 2, "mediaType": index, "manifests": [about]}).encode()
    async with new_client() as client:
        await Registry(client, url).push_blob("team/app", config, contents)
        for tag, kind, body in (("single", single, manifest), ("several", index, several)):
            place = f"{url}/v2/team/app/manifests/{tag}"
            async with client.put(place, data=body, headers={"Content-Type": kind}) as answer:
                assert answer.status == 201, await answer.text()
        assert await search_remotes(home) == ([package], [])


async def test_a_tag_that_is_deleted_while_a_registry_is_listed_stops_no_package(stored, registry, tmp_path):
    store, package = stored
    home = Home(root=tmp_path / "home")
    write_remotes(home, [Remote(name="one", url=f"oci+http://{registry}/team")])
    await push_package(home, store, parse_ref("own"), "one")
    store.put(replace(package, version="3"))
    await push_package(home, store, parse_ref("own@3"), "one")
    shutil.rmtree(next((tmp_path / "registry").rglob("own/_manifests/tags/2/current")))
    assert [found.version for found in (await search_remotes(home))[0]] == ["3"]


def copy_package(command, name, home, **changes):
    """Copy one package to another home with changes to its record."""
    package = PackageStore(command.home).find(parse_ref(name))
    home.blobs.mkdir(parents=True, exist_ok=True)
    for digest in package.blobs:
        shutil.copy(command.home.blobs / digest, home.blobs)
    changed = replace(package, **changes)
    PackageStore(home).put(changed)
    return changed


def test_a_package_is_packed_once_and_its_layer_goes_with_it(drumhead, tmp_path, monkeypatch):
    """Build, push and pull a package: composing packs nothing, except once for an older store or remote."""
    monkeypatch.setattr("drumhead.package.store.LAYER_LEVEL", FAST_LEVEL)  # as the package was packed
    whole = PackageStore(drumhead.home).find(parse_ref("cli"))
    layer = whole.layer("squashfs")
    assert layer.source == PackageStore(drumhead.home).tree(whole).digest()
    older = Drumhead(Home(root=tmp_path / "older"))
    bare = copy_package(drumhead, "cli", older.home, layers=())
    (older.home.blobs / layer.digest).unlink()
    assert list(bare.blobs) == [whole.archive]
    pulled = PackageStore(older.home).pack(bare)
    assert pulled == whole, "packing is reproducible"
    assert file_digest(older.home.blobs / layer.digest) == layer.digest
    (older.home.blobs / layer.digest).unlink()
    assert "has no blob" in older.refused("package", "push", "cli", "--to", tmp_path / "www", status=3)


@pytest.mark.parametrize("text", ["", "a b", "/a", "-a", "a/../b", "a\n", "node@", "@1"])
def test_what_is_no_name_of_a_package_is_not_looked_for(text):
    with pytest.raises(DrumheadError, match=r"is not a package name \(NAME or NAME@VERSION\)"):
        parse_ref(text)
    assert parse_ref("node-micro/tutorial@1.0~x") == PackageRef(name="node-micro/tutorial", version="1.0~x")


def test_a_layer_of_another_tree_is_refused(drumhead, project, tmp_path):
    other = Drumhead(Home(root=tmp_path / "other"))
    copy_package(drumhead, "linux", other.home)
    layer = PackageStore(drumhead.home).find(parse_ref("cli")).layer("squashfs")
    copy_package(drumhead, "cli", other.home, layers=(replace(layer, source="0" * 64),))
    (project / "meta/run.yaml").unlink()
    write_files(project, {"meta/package.yaml": "name: x\ntitle: x\nauthor: x\nrequire: [cli]\n"})
    assert "was not made from its archive" in other.refused("package", "compose", "x", "-C", project, status=6)


@pytest.mark.slow
def test_a_remote_that_does_not_answer_is_said(empty):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        empty("remote", "add", "gone", f"oci+http://127.0.0.1:{closed.getsockname()[1]}/x")
        assert "does not answer" in empty.refused("package", "pull", "cli", status=4)
        done = empty.run("package", "search", "cli")
    assert done.returncode == 0
    assert "the packages of gone are not listed" in done.stderr
    assert "(recipe)" in done.stdout, "what can be built here is listed all the same"


@pytest.mark.parametrize("scheme", ["oci", "https"])
async def test_a_remote_without_tls_is_explained(empty, scheme):
    """Connect with TLS to a server of plain HTTP, which answers with an error in HTTP."""

    async def answer(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        write_remotes(empty.home, [Remote(name="plain", url=f"{scheme}://127.0.0.1:{port}/x")])
        said = await asyncio.to_thread(empty.refused, "package", "pull", "cli", status=4)
    assert "it does not speak TLS" in said
    assert "oci+http://" in said


BROKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
LOGIN = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n"
    b'WWW-Authenticate: Bearer realm="http://127.0.0.1:PORT/token"\r\n\r\n'
)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], "does not list its repositories; pull packages by"),
        ([BROKEN], "broke off within its answer"),
        ([LOGIN, BROKEN], "broke off within its answer"),
        ([LOGIN, b""], "/token does not answer"),
        ([LOGIN.replace(b"realm", b"service")], "gave no token"),
    ],
)
async def test_a_registry_whose_answer_breaks_off_does_not_answer(empty, answers, said):
    """Break the connection within an answer of a registry and of its server for tokens."""
    left = iter(answers)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(left, b"").replace(b"PORT", str(port).encode()))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        write_remotes(empty.home, [Remote(name="one", url=f"oci+http://127.0.0.1:{port}/x")])
        done = await asyncio.to_thread(empty.run, "package", "search", "cli")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{said}.*; the packages of one are not listed", done.stderr)


@pytest.mark.slow
def test_the_demos_run_in_machines(drumhead):
    outcomes = drumhead.json("package", "test", "cli", "python", "ca-certificates", "linux")
    assert [outcome["verdict"] for outcome in outcomes] == ["passed"] * 4
