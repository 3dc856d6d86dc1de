"""ROFS: what is written, read back by a reader that was written from the format's description."""

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumhead.errors import DrumheadError
from drumhead.rofs.writer import rofs_bytes, write_rofs
from drumhead.tree import Tree, directory, host_file, regular, symlink
from support.rofs import contents_of, read_rofs

raw_names = st.binary(min_size=1, max_size=20).map(lambda name: name.decode(errors="surrogateescape"))
names = st.one_of(raw_names, st.sampled_from(["a", "b", "usr", "lib", "ß", "文", "a b", "x" * 255])).filter(
    lambda name: name not in {".", ".."} and not {"/", "\0"} & set(name)
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
targets = st.binary(min_size=1, max_size=300).filter(lambda target: 0 not in target)
entries = st.one_of(
    st.builds(regular, st.one_of(st.binary(max_size=1100), st.sampled_from([b"", b"x" * 512, bytes(1024)]))),
    st.builds(symlink, targets.map(lambda target: target.decode(errors="surrogateescape"))),
    st.builds(directory),
)


def build(contents):
    """A tree of as many of the (path, entry) pairs as fit together."""
    tree = Tree()
    for path, entry in contents:
        try:
            tree.add(path, entry)
        except DrumheadError:
            continue
    return tree


trees = st.lists(st.tuples(paths, entries), max_size=14).map(build)


def expected(tree):
    return {
        path.encode(errors="surrogateescape"): (
            entry.kind,
            entry.read() if entry.kind == "file" else entry.target.encode(errors="surrogateescape"),
        )
        for path, entry in tree
    }


@given(trees)
def test_every_file_of_any_tree_is_read_back(tree):
    written = rofs_bytes(tree)
    disk = read_rofs(io.BytesIO(written))
    assert contents_of(disk) == expected(tree)
    assert disk.gaps == 0
    assert rofs_bytes(tree) == written


def test_the_empty_tree(tmp_path):
    write_rofs(Tree(), tmp_path / "disk")
    assert contents_of(read_rofs(io.BytesIO((tmp_path / "disk").read_bytes()))) == {}
    assert (tmp_path / "disk").stat().st_size == 1024


def test_the_file_and_the_bytes_are_the_same_and_what_a_file_held_before_is_gone(tmp_path):
    host = tmp_path / "host"
    host.write_bytes(bytes(3 << 20) + b"end")
    digest = hashlib.sha256(host.read_bytes()).hexdigest()
    tree = build([("etc/a", regular(b"1")), ("zeros", host_file(host, 0o644, host.stat().st_size, digest))])
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * (8 << 20))
    told = []
    write_rofs(tree, disk, told.append)
    assert disk.read_bytes() == rofs_bytes(tree)
    assert told == [1, 2]
    with disk.open("rb") as file:
        assert contents_of(read_rofs(file)) == expected(tree)


def test_equal_contents_are_stored_once():
    twice = rofs_bytes(build([("a", regular(b"x" * 5000)), ("b", regular(b"x" * 5000))]))
    once = rofs_bytes(build([("a", regular(b"x" * 5000))]))
    assert len(twice) == len(once)


def test_a_thousand_directories_deep():
    tree = build([("/".join(["d"] * 1000) + "/file", regular(b"bottom"))])
    assert contents_of(read_rofs(io.BytesIO(rofs_bytes(tree)))) == expected(tree)


@pytest.mark.parametrize(
    ("path", "entry", "reason"),
    [
        ("x" * 256, regular(b""), "256 bytes, and ROFS on OSv has room for 255"),
        ("é" * 128, regular(b""), "256 bytes"),
        ("/".join(["dir"] * 1100), directory(), "its path has 4096 bytes"),
        ("null\0byte", regular(b""), "zero byte"),
        ("half\ud800", regular(b""), "no text that a disk can hold"),
        ("link", symlink(""), "its target is empty"),
        ("link", symlink("t" * 5000), "its target has 5000 bytes"),
    ],
)
def test_what_rofs_cannot_hold_is_refused(path, entry, reason):
    with pytest.raises(DrumheadError, match=reason):
        rofs_bytes(build([(path, entry)]))


def test_two_names_that_are_one_on_disk_are_refused():
    tree = build([("é", regular(b"1")), ("\udcc3\udca9", regular(b"2"))])
    with pytest.raises(DrumheadError, match="same bytes"):
        rofs_bytes(tree)


@pytest.mark.parametrize("change", [b"longer than it was", b"short", b"as long"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, change):
    host = tmp_path / "host"
    host.write_bytes(b"listed!")
    tree = build([("file", host_file(host, 0o644, 7, hashlib.sha256(b"listed!").hexdigest()))])
    host.write_bytes(change)
    with pytest.raises(DrumheadError, match="changed while it was read"):
        write_rofs(tree, tmp_path / "disk")
