"""Test the uncompressed layers that machines mount: erofs' own tool reads them, and they live as long as the layers."""

import os
import subprocess
from dataclasses import replace

import pytest

from drumhead.filesystem.plain_erofs import BLOCK, write_plain_erofs
from drumhead.image.layers.mounted import mounted_path
from drumhead.image.store import ImageStore
from drumhead.tree import Tree, directory, regular, symlink

SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK)


def odd_tree():
    """Return a tree with all sizes around a block, small and large directories, non-UTF-8 names, owners and modes."""
    tree = Tree()
    for size in SIZES:
        tree.add(f"sizes/{size}", regular(os.urandom(size), 0o640))
    for number in range(700):
        tree.add(f"many/{'name' * (number % 40)}{number}", regular(b"%d" % number))
    tree.add("empty", directory(0o1777))
    tree.add("deep/" + "/".join("abcdefgh"), regular(b"deep"))
    tree.add("not\udce4utf8", regular(b"latin"))
    tree.add("long" * 60, symlink("t" * 4000))
    tree.add("program", replace(regular(b"#!", 0o4755), uid=70_000, gid=1))
    tree.add("owned", replace(directory(0o700), uid=5, gid=70_001))
    return tree


def extracted(layer, place, *flags):
    subprocess.run(["fsck.erofs", f"--extract={place}", *flags, layer], check=True, capture_output=True)
    return place


@pytest.mark.skipif(os.geteuid() != 0, reason="only root unpacks owners")
def test_erofs_own_tool_reads_the_same_tree(tmp_path):
    tree, layer = odd_tree(), tmp_path / "layer"
    write_plain_erofs(tree, layer)
    out = extracted(layer, tmp_path / "modes", "--no-preserve-owner")  # a new owner would clear setuid
    owned = extracted(layer, tmp_path / "owners", "--preserve-owner")
    for path, entry in tree:
        place = out / path
        owner = (owned / path).lstat()
        assert (owner.st_uid, owner.st_gid) == (entry.uid, entry.gid), path
        if entry.kind == "symlink":
            assert str(place.readlink()) == entry.target
        else:
            assert place.stat().st_mode & 0o7777 == entry.mode, path
            assert place.is_dir() if entry.kind == "directory" else place.read_bytes() == entry.read(), path
    assert sum(len(below) + len(files) for _, below, files in os.walk(out)) == len(tree)
    write_plain_erofs(tree, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == layer.read_bytes()


def test_a_machine_mounts_what_its_layers_hold_without_compression(drumhead, project):
    (project / "unlike.py").write_text(f"{os.urandom(9)}\n")  # no other image has this layer
    compose = ("package", "compose", "t/mounted", "-C", project)
    drumhead(*compose)
    store = ImageStore(drumhead.home)
    image = store.find("t/mounted")
    plain = [mounted_path(drumhead.home, layer.blob.digest) for layer in image.layers]
    assert store.mounted_files(image).layers == tuple(plain)
    assert all(path.is_file() for path in plain)
    before = plain[-1].read_bytes()
    plain[-1].unlink()
    assert store.mounted_files(image).layers == (*plain[:-1], drumhead.home.blobs / image.layers[-1].blob.digest)
    drumhead(*compose)
    assert plain[-1].read_bytes() == before, "a snapshot finds the bytes again that it has seen"
    drumhead("rmi", "t/mounted")
    assert not plain[-1].exists()
    assert plain[0].exists(), "the package's layer is still named by the package"
