"""Test the files and boot plans that the Linux guest makes from records, without booting."""

import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.guest.contract import Drive, GuestMount, RunConfig
from drumhead.guest.linux.cpio import CpioEntry, character_device, directory, regular, write_cpio
from drumhead.guest.linux.program import INIT
from drumhead.image.guest_program import compile_program
from drumhead.records import Blob, Command, Image, ImageFiles, Kernel
from drumhead.tree import Tree
from drumhead.tree import regular as tree_file

STATE = Path("/state")
JSON_PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include "parse/json.h"
static void show(const struct json *value) {
    if (value->name) printf("%s=", value->name);
    if (value->kind == JSON_STRING) { for (char *at = value->text; *at; at++) printf("%02x", (unsigned char)*at); }
    else if (value->kind >= JSON_ARRAY) {
        putchar('[');
        for (const struct json *one = value->child; one; one = one->next) { show(one); putchar(','); }
        putchar(']');
    } else printf("%d:%g", value->kind, value->number);
}
int main(void) {
    static char line[1 << 20];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        struct json *value = json_parse(line);
        if (value) show(value); else fputs("refused", stdout);
        putchar('\n');
        json_free(value);
    }
}
"""


def unpack_cpio(archive):
    """Return names, modes and contents of a cpio archive, with an independent reader of the format."""
    at, found = 0, []
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        assert fields[2] == fields[3] == fields[5] == 0  # owned by root, and without a time
        found.append((name, fields[1], archive[start : start + fields[6]], (fields[9], fields[10])))
        at = (start + fields[6] + 3) & ~3


names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/"), min_size=1, max_size=30)


@given(st.lists(st.tuples(names, st.binary(max_size=50)), max_size=5))
def test_cpio_holds_what_was_put_in(files):
    archive = write_cpio([regular(name, contents) for name, contents in files])
    assert [(name, contents) for name, _, contents, _ in unpack_cpio(archive)] == files
    assert len(archive) % 512 == 0


def test_cpio_has_directories_and_devices():
    archive = write_cpio([directory("dev"), character_device("dev/console", 5, 1), CpioEntry(name="x", mode=0o120777)])
    assert [(name, mode, device) for name, mode, _, device in unpack_cpio(archive)] == [
        ("dev", 0o40755, (0, 0)),
        ("dev/console", 0o20600, (5, 1)),
        ("x", 0o120777, (0, 0)),
    ]


@pytest.mark.slow
def test_initrd_is_the_same_every_time_and_small(tmp_path):
    kernel = {"modules/01-b.ko": b"two", "modules/00-a.ko": b"one", "vmlinux.xz": b"no"}
    guest = find_guest("linux")
    program = compile_program(guest.program, tmp_path)
    first, second = guest.initrd(kernel, program), guest.initrd(dict(reversed(kernel.items())), program)
    assert first == second
    assert len(first) < 64 << 10
    files = {name: contents for name, _, contents, _ in unpack_cpio(zstandard.decompress(first))}
    assert list(files) == ["dev", "dev/console", "modules", "init", "modules/00-a.ko", "modules/01-b.ko"]
    assert files["init"][:4] == b"\x7fELF"
    assert str(INIT.sources).encode() not in files["init"]


@pytest.mark.slow
@pytest.mark.parametrize("guest", ["linux", "osv"])
def test_programs_of_guests_compile_without_warnings_and_warnings_of_other_compilers_are_no_errors(guest, tmp_path):
    program = find_guest(guest).program
    strict = [*program.compiler, "-Werror", "-o", tmp_path / "program", *sorted(program.sources.rglob("*.c"))]
    subprocess.run(strict, check=True, timeout=60)
    sources = shutil.copytree(program.sources, tmp_path / "sources")
    (sources / "new.c").write_text("static int unused;\n")
    assert compile_program(msgspec.structs.replace(program, sources=sources), tmp_path / "cache")[:4] == b"\x7fELF"


def image_files(tmp_path, layers):
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"packed")
    return ImageFiles(
        kernel=Path("/kernel"), initrd=initrd, layers=tuple(Path(f"/blobs/{number}") for number in range(layers))
    )


IMAGE = Image(
    name="i",
    title="",
    version="",
    guest="linux",
    kernel=Kernel(package="linux", version="6", vmlinux=Blob(digest="a", size=1), initrd=None),
    layers=(),
)
CONFIG = RunConfig(
    hostname="one",
    command=Command(argv=("/bin/x", "a b"), env={"K": "ü"}),
    hosts={"two": "10.64.0.2"},
    mounts=(GuestMount(serial="volume-0", path="/data"),),
)


def test_plan_names_layers_in_order_then_data(tmp_path):
    data = Drive(path=Path("/volumes/d.raw"), format="raw", serial="volume-0", readonly=False)
    plan = find_guest("linux").plan(IMAGE, image_files(tmp_path, 3), CONFIG, STATE, (data,))
    assert [drive.serial for drive in plan.drives] == ["layer-0", "layer-1", "layer-2", "volume-0"]
    assert [drive.readonly for drive in plan.drives] == [True, True, True, False]
    assert "/dev/" not in plan.cmdline
    assert plan.channels[-1].name == "org.drumhead.status"


def test_configuration_follows_the_initrd_as_an_archive_of_its_own(tmp_path):
    plan = find_guest("linux").plan(IMAGE, image_files(tmp_path, 1), CONFIG, STATE, ())
    contents = plan.files[plan.initrd]
    assert contents[:8] == b"packed\0\0"
    files = {name: (mode, text) for name, mode, text, _ in unpack_cpio(contents[8:])}
    mode, text = files["drumhead/config.json"]
    assert mode & 0o77 == 0
    assert json.loads(text)["command"] == {"argv": ["/bin/x", "a b"], "env": {"K": "ü"}, "cwd": "/"}


@pytest.mark.parametrize("layers", [0, 33])
def test_plan_refuses_what_init_cannot_mount(tmp_path, layers):
    with pytest.raises(DrumheadError) as error:
        find_guest("linux").plan(IMAGE, image_files(tmp_path, layers), CONFIG, STATE, ())
    assert error.value.code is ErrorCode.UNSUPPORTED


def test_a_program_for_another_machine_is_named():
    tree = Tree()
    tree.add("bin/ours", tree_file(b"\x7fELF\2" + bytes(13) + (62).to_bytes(2, "little") + b"rest", 0o755))
    tree.add("bin/script", tree_file(b"#!/bin/sh\necho this is not a program\n", 0o755))
    assert find_guest("linux").check(tree) == ()
    tree.add("lib/x.so.1", tree_file(b"\x7fELF\2" + bytes(13) + (183).to_bytes(2, "little") + b"rest"))
    (finding,) = find_guest("linux").check(tree)
    assert (finding.path, finding.severity) == ("lib/x.so.1", "program")


def test_unknown_guest_is_refused():
    with pytest.raises(DrumheadError) as error:
        find_guest("plan9")
    assert error.value.code is ErrorCode.UNSUPPORTED


@pytest.fixture(scope="module")
def read_json(tmp_path_factory):
    """Return a function that reads lines with init's JSON reader, and returns each value with its kind."""
    directory = tmp_path_factory.mktemp("json")
    (directory / "main.c").write_text(JSON_PROGRAM)
    words = ["musl-gcc", "-D_GNU_SOURCE", "-static", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    sources = [directory / "main.c", INIT.sources / "parse" / "json.c"]
    subprocess.run([*words, f"-I{INIT.sources}", "-o", directory / "json", *sources], check=True, timeout=60)

    def read(lines):
        data = "".join(f"{line}\n" for line in lines)
        done = subprocess.run([directory / "json"], input=data.encode(), capture_output=True, check=True, timeout=60)
        return done.stdout.decode().splitlines()

    return read


def shown(value):
    match value:
        case None:
            return "0:0"
        case bool():
            return f"1:{value:d}"
        case int():
            return f"2:{value:g}"
        case str():
            return value.encode().hex()
        case list():
            return "[" + "".join(shown(one) + "," for one in value) + "]"
        case dict():
            return "[" + "".join(f"{name}={shown(one)}," for name, one in value.items()) + "]"


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
plain = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-99999, 99999) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
def test_init_reads_json_as_python_does(read_json):
    written = []

    @given(values)
    def collect(value):
        written.append(value)

    collect()
    for ascii_only in (True, False):
        lines = [json.dumps(value, ensure_ascii=ascii_only) for value in written]
        assert read_json(lines) == [shown(value) for value in written]


def test_init_refuses_what_is_no_json(read_json):
    bad = [
        "",
        "{",
        '{"a"',
        '{"a":}',
        "[1,]",
        "[1 2]",
        '"open',
        '"\\x"',
        '"\\u12"',
        '"\\ud800x"',
        "nul",
        "1 2",
        "[" * 50,
        "[1",
        "[inf]",
        "0x10",
        "+1",
        "01",
        "1.",
        "1e",
        '"\\udc00"',
        '"\\u\x10\x11\x12\x13"',
        '"a\x01b"',
    ]
    assert read_json(bad) == ["refused"] * len(bad)
