"""Test pushing whole images to a real registry (Debian's docker-registry) and pulling them."""

import asyncio

import pytest

from drumhead.download import new_client
from drumhead.image.export.artifact import manifest_of
from drumhead.image.store import ImageStore, blobs_of, encode
from drumhead.image.transfer import default_tag
from drumhead.package.remote.registry import Registry
from support.guests.composing import write_files

SHELL = "name: moved\ntitle: Moved\nauthor: x\nversion: 1.2\nrequire: [cli]\n"
RUN = "runtime: native\nconfig_set:\n  main:\n    bootcmd: /usr/bin/cat /text\n"


@pytest.fixture
def composed(drumhead, tmp_path):
    """Return a project whose composed image t/moved prints ``first``."""
    files = {"meta/package.yaml": SHELL, "meta/run.yaml": RUN, "text": "first\n"}
    project = write_files(tmp_path / "project", files)
    drumhead("package", "compose", "t/moved", "-C", project)
    return project


@pytest.fixture
async def remotes(drumhead, empty, registry):
    """Add the registry as a remote for the sender and the receiver."""
    for command in (drumhead, empty):
        await asyncio.to_thread(command, "remote", "add", "images", f"oci+http://{registry}/team")
    yield registry
    await asyncio.to_thread(drumhead, "remote", "remove", "images")


def stored(tmp_path):
    """Return the registry's files by digest, with the times when they were written."""
    files = (tmp_path / "registry").rglob("blobs/sha256/*/*/data")
    return {file.parent.name: (file, file.stat().st_mtime_ns) for file in files}


async def test_an_image_moves_whole_and_only_what_is_new_is_sent(drumhead, empty, composed, remotes, tmp_path):
    push = (drumhead, "image", "push", "t/moved")
    said = (await asyncio.to_thread(*push)).split()
    assert said[:2] == ["pushed", "team/images/t/moved:1.2"]
    assert said[2].startswith("sha256:")
    image = ImageStore(drumhead.home).find("t/moved")
    before = stored(tmp_path)
    assert {blob.digest for blob in blobs_of(image)} <= before.keys()
    assert "pulled t/moved for linux" in await asyncio.to_thread(empty, "image", "pull", "t/moved")
    pulled = ImageStore(empty.home).find("t/moved")
    assert encode(pulled) == encode(image)
    for blob in blobs_of(image):
        assert (empty.home.blobs / blob.digest).read_bytes() == (drumhead.home.blobs / blob.digest).read_bytes()

    (composed / "text").write_text("second\n")
    await asyncio.to_thread(drumhead, "package", "compose", "t/moved", "-C", composed)
    await asyncio.to_thread(*push)
    after = stored(tmp_path)
    assert all(after[digest] == place for digest, place in before.items()), "what was there was not sent again"
    new = {blob.digest for blob in blobs_of(ImageStore(drumhead.home).find("t/moved"))} - before.keys()
    assert len(new) == 1
    assert new < after.keys() - before.keys()
    await asyncio.to_thread(empty, "image", "pull", "t/moved", said[2])
    assert encode(ImageStore(empty.home).find("t/moved")) == encode(image), "the digest still names the first"
    about = await asyncio.to_thread(empty.json, "image", "pull", "t/moved", "1.2")
    assert about["layers"][-1]["blob"]["digest"] in new
    assert await asyncio.to_thread(empty.json, "package", "search", "nothing-of-this-name") == []


async def test_what_a_registry_changed_is_refused_and_leaves_no_image(drumhead, empty, composed, remotes, tmp_path):
    await asyncio.to_thread(drumhead, "image", "push", "t/moved", "--tag", "latest")
    image = ImageStore(drumhead.home).find("t/moved")
    file, _ = stored(tmp_path)[image.layers[-1].blob.digest]
    right = file.read_bytes()
    file.write_bytes(right[:-1] + b"?")
    said = await asyncio.to_thread(empty.refused, "image", "pull", "t/moved", status=6)
    assert "was expected; nothing is kept" in said
    assert ImageStore(empty.home).list() == []
    assert not (empty.home.blobs / image.layers[-1].blob.digest).exists()
    file.write_bytes(right)
    await asyncio.to_thread(empty, "image", "pull", "t/moved")
    assert encode(ImageStore(empty.home).find("t/moved")) == encode(image)


async def test_a_manifest_that_does_not_go_with_its_record_is_refused(drumhead, empty, composed, remotes):
    await asyncio.to_thread(drumhead, "image", "push", "t/moved")
    manifest, _ = manifest_of(ImageStore(drumhead.home).find("t/moved"))
    async with new_client() as client:
        registry = Registry(client, f"http://{remotes}")
        fewer = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
        fewer["layers"] = manifest.layers[:-1]
        await registry.push_manifest("team/images/t/moved", "fewer", type(manifest)(**fewer))
    said = await asyncio.to_thread(empty.refused, "image", "pull", "t/moved", "fewer", status=6)
    assert "lists other contents than its record" in said
    assert "answered 404" in await asyncio.to_thread(empty.refused, "image", "pull", "t/moved", "0.1", status=3)
    assert ImageStore(empty.home).list() == []


async def test_a_version_that_no_tag_can_spell_is_pulled_as_it_was_pushed(drumhead, empty, composed, remotes):
    manifest = composed / "meta/package.yaml"
    manifest.write_text(manifest.read_text().replace("1.2", '"1.0+build 5"'))
    await asyncio.to_thread(drumhead, "package", "compose", "t/moved", "-C", composed)
    refused = await asyncio.to_thread(drumhead.refused, "image", "push", "t/moved", "--tag", "a b", status=2)
    assert "a registry does not accept the tag 'a b'; 'a_b' is one that it accepts" in refused
    assert "t/moved:1.0_build_5 " in await asyncio.to_thread(drumhead, "image", "push", "t/moved")
    await asyncio.to_thread(empty, "image", "pull", "t/moved", "1.0+build 5")
    assert encode(ImageStore(empty.home).find("t/moved")) == encode(ImageStore(drumhead.home).find("t/moved"))
    await asyncio.to_thread(empty, "image", "pull", "t/moved")
    for wanted in ("t/moved", "sha256:00"), ("t/missing",):
        said = await asyncio.to_thread(empty.refused, "image", "pull", *wanted, status=3)
        assert f"the registry has no image team/images/{wanted[0]}" in said


def test_what_cannot_be_moved_is_said(drumhead, empty, composed):
    empty("remote", "add", "web", "https://web.test/packages")
    assert "no image t/moved" in empty.refused("image", "push", "t/moved", status=3)
    assert "images go to a registry" in empty.refused("image", "pull", "t/moved", status=5)
    image = ImageStore(drumhead.home).find("t/moved")
    assert default_tag(image) == "1.2"


@pytest.mark.slow
async def test_a_pulled_image_runs_where_nothing_else_is(drumhead, empty, composed, remotes):
    await asyncio.to_thread(drumhead, "image", "push", "t/moved")
    await asyncio.to_thread(empty, "image", "pull", "t/moved")
    assert await asyncio.to_thread(empty, "run", "t/moved") == "first\n"
