"""Test signed packages: keys, remotes with a key, and registries."""

import asyncio
import json

import msgspec
import pytest

from drumhead.errors import DrumheadError
from drumhead.home import Home
from drumhead.package import signing
from drumhead.package.records import Package
from drumhead.package.remote.http_directory import write_directory
from drumhead.package.store import PackageStore
from drumhead.tree import Tree, regular
from support.guests.composing import Drumhead

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path):
    return Home(root=tmp_path / "home")


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
