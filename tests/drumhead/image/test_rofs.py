"""Test the ROFS writer with a reader that was written from the format's description."""

import hashlib
import io
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drumhead.errors import DrumheadError
from drumhead.filesystem.rofs.layout import DIRECTORY, INODE
from drumhead.filesystem.rofs.reader import read_layer
from drumhead.filesystem.rofs.root import partition_table, root_disk, unite, write_root
from drumhead.filesystem.rofs.writer import rofs_bytes, write_rofs
from drumhead.tree import Tree, directory, host_file, regular, symlink
from support.guests.rofs import contents_of, read_rofs

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
    """Return a tree of those (path, entry) pairs that do not conflict."""
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
        ("x" * 256, regular(b""), "256 bytes, more than the 255 that ROFS on OSv supports"),
        ("é" * 128, regular(b""), "256 bytes"),
        ("/".join(["dir"] * 1100), directory(), "its path has 4096 bytes"),
        ("null\0byte", regular(b""), "zero byte"),
        ("half\ud800", regular(b""), "cannot be encoded"),
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


def lay(folder, trees):
    """Write the layers and their root to files, as an image has them; the root is the last one."""
    files = [folder / f"layer {number}" for number in range(len(trees))]
    for tree, file in zip(trees, files, strict=True):
        write_rofs(tree, file)
    root = folder / "root"
    root.write_bytes(unite(files))
    return [*files, root]


def united(trees):
    whole = Tree()
    for tree in trees:
        whole.update(tree)
    for path, entry in list(whole):
        if entry.kind == "symlink" and "/" not in path:
            whole.add(path, symlink("/" + entry.target.removeprefix("/")))
    return whole


def check_partition(disk):
    """Assert that the disk's file system lies in its second partition."""
    assert disk[510:512] == b"\x55\xaa"
    assert not any(disk[:0x1CE])
    assert not any(disk[0x1DE:510])
    kind, first, count = struct.unpack_from("<4xB3xII", disk, 0x1CE)
    assert kind == 0x83
    assert disk[0x1CE + 2] & 0x3F
    assert first == 1
    assert (first + count) * 512 == len(disk)


@pytest.mark.slow
@given(st.lists(trees, min_size=1, max_size=4))
@settings(deadline=None)
def test_united_layers_hold_what_copying_them_over_one_another_gives(tmp_path_factory, trees):
    folder = tmp_path_factory.mktemp("layers")
    try:
        whole = united(trees)
    except DrumheadError:
        return  # the trees have a loop of links, or a file where a later layer has a directory
    layers = lay(folder, trees)
    out = io.BytesIO(layers[-1].read_bytes()[:512])
    out.seek(512)
    write_root(layers, out)
    check_partition(out.getvalue())
    assert contents_of(read_rofs(out, 512)) == expected(whole)


def test_a_disk_has_at_most_the_sectors_that_its_partition_table_can_say():
    sector = partition_table([(4096, (1 << 32) - 4097)], b"boot" + bytes(508))
    assert struct.unpack_from("<II", sector, 0x1CE + 8) == (4096, (1 << 32) - 4097)
    assert sector.startswith(b"boot")
    with pytest.raises(DrumheadError, match="2 TiB or more"):
        partition_table([(4096, (1 << 32) - 4096)])


def layered():
    return [
        build(
            [
                ("usr/lib/base", regular(b"base" * 300)),
                ("lib", symlink("usr/lib")),
                ("etc/passwd", regular(b"root")),
                ("opt/tool/bin", regular(b"tool")),
                ("swap", directory()),
            ]
        ),
        Tree(),
        build(
            [
                ("usr/lib/second", regular(b"QFI\xfb" + b"2" * 2000)),
                ("opt/tool", symlink("/usr")),
                ("empty", regular(b"")),
            ]
        ),
        build([("lib/through-a-link", regular(b"3")), ("etc/passwd", regular(b"nobody")), ("swap", regular(b"file"))]),
    ]


def test_qemu_reads_the_layers_as_one_disk(tmp_path):
    folder = tmp_path / "a folder, with = signs; {und} Ümläute 文 \\"
    folder.mkdir()
    layers = lay(folder, layered())
    for file in layers:
        file.chmod(0o444)
    descriptor = folder / "root.vmdk"
    descriptor.write_bytes(root_disk(layers))
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", descriptor, raw], check=True)
    check_partition(raw.read_bytes())
    with raw.open("rb") as file:
        disk = read_rofs(file, 512)
        assert contents_of(disk) == expected(united(layered()))
    assert disk.links[b"opt/tool"] == b"/usr"
    assert b"usr/lib/through-a-link" in disk.places
    assert disk.gaps == 2  # the data of covered files stays in their layer: etc/passwd and opt/tool/bin


def test_a_descriptor_names_no_path_that_qemu_would_read_otherwise(tmp_path):
    folder = tmp_path / 'a "quoted" folder'
    folder.mkdir()
    with pytest.raises(DrumheadError, match="move DRUMHEAD_HOME"):
        root_disk(lay(folder, layered()))


def test_only_the_changed_layer_and_the_root_are_new(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    trees = layered()
    before = lay(one, trees)
    after = lay(other, [*trees[:-1], build([("app.py", regular(b"edited"))])])
    kept = [left.read_bytes() == right.read_bytes() for left, right in zip(before, after, strict=True)]
    assert kept == [True, True, True, False, False]
    assert lay(one, trees)[-1].read_bytes() == before[-1].read_bytes()


def test_a_root_of_other_layers_and_damaged_layers_are_refused(tmp_path):
    layers = lay(tmp_path, layered())
    with pytest.raises(DrumheadError, match="is the root of other layers"):
        root_disk([*layers[:2], layers[-1]])
    whole = layers[0].read_bytes()
    for damage in (b"", b"\0" * 512, whole[:512], whole[:-512], whole[:40] + struct.pack("<Q", 1 << 60) + whole[48:]):
        layers[0].write_bytes(damage)
        with pytest.raises(DrumheadError, match="not a ROFS layer or is damaged"):
            unite(layers[:-1])


def test_directories_of_a_layer_do_not_share_entries(tmp_path):
    """A few kilobytes could otherwise hold millions of files."""
    tree = build([(f"d{number}/{name}", regular(b"")) for number in range(9) for name in "abc"])
    layer = tmp_path / "layer"
    write_rofs(tree, layer)
    assert len(read_layer(layer)[0]) == 36
    damaged = bytearray(layer.read_bytes())
    root = damaged.index(INODE.pack(DIRECTORY, 1, 0, 9))
    for number in range(2, 11):
        INODE.pack_into(damaged, root + (number - 1) * INODE.size, DIRECTORY, number, 9, 27)
    layer.write_bytes(damaged)
    with pytest.raises(DrumheadError, match="is damaged"):
        read_layer(layer)


@pytest.mark.slow
def test_a_file_of_more_than_four_gibibytes(tmp_path):
    host = tmp_path / "huge"
    size = (4 << 30) + 5
    with host.open("wb") as file:
        file.truncate(size)
        file.seek(size - 5)
        file.write(b"end")
    with host.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    tree = build([("a", regular(b"before")), ("huge", host_file(host, 0o644, size, digest)), ("z", regular(b"after"))])
    write_rofs(tree, tmp_path / "layer")
    root = tmp_path / "root"
    root.write_bytes(unite([tmp_path / "layer"]))
    descriptor = tmp_path / "root.vmdk"
    descriptor.write_bytes(root_disk([tmp_path / "layer", root]))
    assert (tmp_path / "layer").stat().st_blocks * 512 < 16 << 20, "zeros take no room"
    with (tmp_path / "layer").open("rb") as file:
        disk = read_rofs(file)
        assert disk.read(b"z") == b"after"
        first, stored = disk.places[b"huge"]
        assert stored == size
        file.seek(first * 512 + size - 6)
        assert file.read(7) == b"\0end\0\0\0"
    last = 512 * (1 + disk.places[b"z"][0])
    command = ["qemu-io", "-r", "-f", "vmdk", "-c", f"read -v {last} 512", descriptor]
    assert "61 66 74 65 72 00" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_links_in_a_root_become_absolute(tmp_path):
    """OSv does not follow relative links in its root."""
    tree = Tree()
    tree.add("usr/bin/python3", symlink("python3.11"))
    tree.add("python", symlink("usr/bin/python3"))
    tree.add("etc", symlink("/usr"))
    write_rofs(tree, tmp_path / "layer")
    disk = read_rofs(io.BytesIO(unite([tmp_path / "layer"])[512:]))
    assert disk.links == {b"python": b"/usr/bin/python3", b"etc": b"/usr", b"usr/bin/python3": b"python3.11"}
