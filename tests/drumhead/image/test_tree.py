"""Test trees, their canonical form and their squashfs, ELF files, and the closure of libraries."""

import io
import os
import struct
import subprocess
import tarfile
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumhead.blobs import file_digest
from drumhead.closure import Missing, Node, complete, find_missing, follow, index_of, merge
from drumhead.elf import PT_DYNAMIC, Needs, read_linkage, read_needs, shorten, writable_parts
from drumhead.errors import DrumheadError
from drumhead.filesystem import squashfs
from drumhead.filesystem.plain_erofs import write_plain_erofs
from drumhead.filesystem.rofs.writer import write_rofs
from drumhead.filesystem.squashfs import write_squashfs
from drumhead.filesystem.tar import read_tar, write_tar
from drumhead.tree import Tree, directory, host_file, regular, symlink
from support.guests.composing import write_files

LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")
LIBZ = Path("/usr/lib/x86_64-linux-gnu/libz.so.1")
names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=40)
paths = st.lists(names.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4).map("/".join)
entries = st.one_of(
    st.builds(regular, st.binary(max_size=600), st.integers(0, 0o7777)),
    st.builds(
        symlink,
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=200),
    ),
    st.builds(directory, st.integers(0, 0o7777)),
)


def pack(tree):
    out = io.BytesIO()
    write_tar(tree, out)
    return out.getvalue()


@pytest.mark.slow
@given(st.dictionaries(paths, entries, max_size=12))
def test_any_tree_survives_its_tar(contents):
    tree = Tree()
    for path, entry in contents.items():
        try:
            tree.add(path, entry)
        except DrumheadError:
            continue
    again = read_tar(io.BytesIO(pack(tree)), 1 << 20)
    assert list(again) == list(tree)
    assert again.digest() == tree.digest()
    assert pack(again) == pack(tree)


def test_the_order_of_adding_does_not_matter():
    one, two = Tree(), Tree()
    files = {"b/c": regular(b"1"), "b.d": regular(b"2"), "a": symlink("b")}
    for path, entry in files.items():
        one.add(path, entry)
    for path, entry in reversed(files.items()):
        two.add(path, entry)
    assert pack(one) == pack(two)


def test_copying_goes_through_links_as_on_a_disk():
    base = Tree()
    base.add("usr/bin", directory())
    base.add("bin", symlink("usr/bin"))
    base.add("usr/bin/sh", regular(b"shell"))
    project = Tree()
    project.add("bin/upload.sh", regular(b"up"))
    base.update(project)
    assert base["bin"].kind == "symlink"
    assert base["usr/bin/upload.sh"].read() == b"up"
    assert base["usr/bin/sh"].read() == b"shell"


def test_a_directory_replaces_a_link_to_a_file_and_not_the_file():
    base = Tree()
    base.add("usr/bin/python3.11", regular(b"interpreter"))
    base.add("python3", symlink("usr/bin/python3.11"))
    base.add("python", symlink("python3"))
    project = Tree()
    project.add("python/main.py", regular(b"main"))
    base.update(project)
    assert base["usr/bin/python3.11"].read() == b"interpreter"
    assert base["python3"].kind == "symlink"
    assert base["python/main.py"].read() == b"main"


def test_a_file_cannot_hold_files_and_a_loop_is_found():
    tree = Tree()
    tree.add("a", regular(b""))
    with pytest.raises(DrumheadError, match="not a directory"):
        tree.add("a/b", regular(b""))
    tree.add("x", symlink("y"))
    tree.add("y", symlink("x"))
    with pytest.raises(DrumheadError, match="loop"):
        tree.resolve("x/z")
    with pytest.raises(DrumheadError, match="outside the tree"):
        tree.add("../x", regular(b""))


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    file = tmp_path / "f"
    file.write_text("now")
    with pytest.raises(DrumheadError, match="changed while"):
        host_file(file, 0o644, 3, "0" * 64).read()


@pytest.mark.parametrize("write", [pack, partial(write_plain_erofs, path=Path(os.devnull))], ids=["tar", "erofs"])
def test_a_file_that_grows_while_it_is_listed_is_not_cut(tmp_path, write):
    file = tmp_path / "f"
    file.write_text("now and later")
    tree = Tree()
    tree.add("f", host_file(file, 0o644, 3, file_digest(file)))
    with pytest.raises(DrumheadError, match="changed while"):
        write(tree)


@pytest.mark.parametrize("write", [write_tar, write_rofs, write_plain_erofs])
def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path, write):
    file, size = tmp_path / "model.gguf", 48 << 20
    file.touch()
    os.truncate(file, size)
    tree = Tree()
    tree.add(file.name, host_file(file, 0o644, size, file_digest(file)))
    tracemalloc.start()
    try:
        with Path(os.devnull).open("wb") as out:
            write(tree, out if write is write_tar else tmp_path / "layer")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size // 4


def test_a_device_in_an_archive_is_refused():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("dev/sda")
        info.type = tarfile.BLKTYPE
        archive.addfile(info)
    with pytest.raises(DrumheadError, match="device"):
        read_tar(io.BytesIO(out.getvalue()), 1 << 20)
    with pytest.raises(DrumheadError, match="tar"):
        read_tar(io.BytesIO(b"x" * 2000), 1 << 20)


def test_needs_are_read_from_elf():
    needs = read_needs(Path("/bin/sh").resolve().read_bytes())
    assert needs == Needs(interpreter="/lib64/ld-linux-x86-64.so.2", libraries=("libc.so.6",))
    assert read_needs(b"#!/bin/sh") is None
    assert read_needs(b"\x7fELF" + b"\x02" * 14 + b"\x3e\x00" + b"\xff" * 60) is None


def test_a_shortened_program_still_runs(tmp_path):
    whole = Path("/bin/echo").read_bytes()
    short = tmp_path / "echo"
    short.write_bytes(shorten(whole))
    short.chmod(0o755)
    assert short.stat().st_size < len(whole)
    assert subprocess.run([short, "still here"], capture_output=True, check=True).stdout == b"still here\n"


def test_what_no_loader_reads_is_not_shortened(tmp_path):
    source = write_files(tmp_path, {"m.c": "int answer = 42;"}) / "m.c"
    subprocess.run(["clang", "-c", "-g", "-o", tmp_path / "m.o", source], check=True)
    whole = LIBZ.read_bytes()
    for contents in ((tmp_path / "m.o").read_bytes(), whole[:64], whole[:1000], whole[:20_000], b"\x7fELF"):
        assert shorten(contents) == contents
    assert len(shorten(whole)) < len(whole)


def test_no_number_in_an_elf_file_is_an_error():
    """Damage each word of the headers and of the dynamic table."""
    whole = LIBZ.read_bytes()
    headers, size, count = struct.unpack_from("<Q14xHH", whole, 32)
    segments = [struct.unpack_from("<IIQQQQQQ", whole, headers + size * number) for number in range(count)]
    ((start, stored),) = [(offset, stored) for kind, _, offset, _, _, stored, *_ in segments if kind == PT_DYNAMIC]
    words = [(at, 2) for at in range(20, 64, 2)]
    words += [(at, 8) for at in (*range(headers, headers + size * count, 8), *range(start, start + stored, 8))]
    for at, width in words:
        for number in (0, 1, (1 << 8 * width - 1) - 1, (1 << 8 * width) - 1):
            damaged = whole[:at] + number.to_bytes(width, "little") + whole[at + width :]
            read_needs(damaged)
            read_linkage(damaged)
            writable_parts(damaged)
            assert len(shorten(damaged)) <= len(whole)


def test_the_closure_takes_what_is_missing_and_nothing_else():
    tree, pool = Tree(), Tree()
    tree.add("usr/bin/sh", regular(Path("/bin/sh").resolve().read_bytes(), 0o755))
    pool.add("usr/lib/x86_64-linux-gnu/libc.so.6", regular(LIBC.resolve().read_bytes()))
    pool.add("usr/lib/x86_64-linux-gnu/ld-real.so", regular(LIBC.with_name("ld-linux-x86-64.so.2").read_bytes()))
    pool.add("usr/lib/x86_64-linux-gnu/libunused.so.1", regular(b"x"))
    pool.add("usr/lib64/ld-linux-x86-64.so.2", symlink("/lib/x86_64-linux-gnu/ld-real.so"))
    assert find_missing(index_of(tree)) == [
        Missing(path="usr/bin/sh", library="/lib64/ld-linux-x86-64.so.2"),
        Missing(path="usr/bin/sh", library="libc.so.6"),
    ]
    added, missing = complete(index_of(tree), index_of(pool))
    assert missing == []
    assert added == {
        "usr/lib64/ld-linux-x86-64.so.2": "usr/lib/x86_64-linux-gnu/ld-real.so",
        "usr/lib/x86_64-linux-gnu/libc.so.6": "usr/lib/x86_64-linux-gnu/libc.so.6",
    }


def test_the_closure_takes_libraries_from_where_the_program_or_an_alternative_has_them():
    pool = Tree()
    pool.add("usr/lib/x86_64-linux-gnu/app/libprivate.so", regular(b"x"))
    pool.add("usr/lib/x86_64-linux-gnu/blas/libblas.so.3", symlink("libblas.so.3.11"))
    pool.add("usr/lib/x86_64-linux-gnu/blas/libblas.so.3.11", regular(b"y"))
    pool.add("usr/share/app/libnone.so", regular(b"z"))
    needs = Needs(libraries=("libprivate.so", "libblas.so.3", "libnone.so"), search=("/lib/x86_64-linux-gnu/app",))
    index = {"usr": Node("directory"), "usr/bin": Node("directory"), "usr/bin/app": Node("file", needs=needs)}
    added, missing = complete(index, index_of(pool))
    assert added == {
        "usr/lib/x86_64-linux-gnu/app/libprivate.so": "usr/lib/x86_64-linux-gnu/app/libprivate.so",
        "usr/lib/x86_64-linux-gnu/libblas.so.3": "usr/lib/x86_64-linux-gnu/blas/libblas.so.3.11",
    }
    assert missing == [Missing(path="usr/bin/app", library="libnone.so")]


def test_links_in_an_index_lead_where_they_do_in_a_guest():
    tree = Tree()
    tree.add("usr/lib/real/x.so", regular(b"x"))
    tree.add("usr/lib/x.so", symlink("real/x.so"))
    tree.add("opt/x", symlink("/lib/x.so"))
    tree.add("round", symlink("round"))
    index = merge([index_of(tree)])
    assert follow(index, "/opt/x") == "usr/lib/real/x.so"
    assert follow(index, "round") == ""
    assert follow(index, "usr/../usr/lib/./x.so") == "usr/lib/real/x.so"


def test_what_cannot_be_placed_leaves_the_tree_as_it_was():
    tree = Tree()
    tree.add("link", symlink("elsewhere"))
    before = tree.digest()
    with pytest.raises(DrumheadError, match="/link is not a directory"):
        tree.add("link/folder/file", regular(b""))
    assert tree.digest() == before


@pytest.mark.parametrize("crowded", [False, True])
def test_files_of_one_size_are_compared_with_one_another_only_if_they_are_not_too_many(tmp_path, monkeypatch, crowded):
    """mksquashfs compares each file with all others of its size: 100,000 files of some bytes took four minutes."""
    monkeypatch.setattr(squashfs, "CROWD", 50)
    tree, path = Tree(), tmp_path / "image"
    for number in range(50 if crowded else 49):
        tree.add(f"same/{number}", regular(b"all of them are equal", 0o644))
    tree.add("other", regular(b"another size", 0o644))
    write_squashfs(tree, path, level=1)
    listed = subprocess.run(["unsquashfs", "-s", path], check=True, capture_output=True, text=True).stdout
    assert ("Duplicates are not removed" in listed) is crowded
    unpacked = tmp_path / "unpacked"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-dest", unpacked, path], check=True)
    found = {file.relative_to(unpacked).as_posix(): file.read_bytes() for file in unpacked.rglob("*") if file.is_file()}
    assert found == {name: entry.read() for name, entry in tree if entry.kind == "file"}
