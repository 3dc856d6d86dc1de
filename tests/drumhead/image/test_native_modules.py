"""Test native modules of Node.js: the version that they were built for, which must be that of the image."""

import subprocess

import pytest

from drumhead.errors import DrumheadError
from drumhead.node.native import check_native, module_abi
from drumhead.tree import Tree, regular
from support.guests.composing import write_files

NATIVE = {
    "new": "void node_register_module_v{abi}(void) {{}}",
    "old": (
        "struct m {{ int version; unsigned flags; void *handle; const char *file; void *a, *b; const char *name; "
        "void *c, *d; }};"
        'void node_module_register(void *); static struct m m = {{{abi}, 0, 0, __FILE__, 0, &m, "x", 0, 0}};'
        "__attribute__((constructor)) static void r(void) {{ node_module_register(&m); }}"
    ),
    "node-api": "void napi_module_register(void *); void f(void) {{ napi_module_register((void *)(long){abi}); }}",
}


def native(directory, kind, abi):
    """Compile a native module of one of the three kinds."""
    source = write_files(directory, {"m.c": NATIVE[kind].format(abi=abi)}) / "m.c"
    subprocess.run(["clang", "-shared", "-fPIC", "-O1", "-o", directory / "m.node", source], check=True)
    return (directory / "m.node").read_bytes()


@pytest.mark.parametrize(("kind", "expected"), [("new", 127), ("old", 127), ("node-api", 0)])
def test_a_native_module_tells_its_version(tmp_path, kind, expected):
    assert module_abi(native(tmp_path, kind, 127)) == expected


def test_a_number_that_is_no_version_is_not_read(tmp_path):
    assert module_abi(native(tmp_path, "new", "1" * 5000)) == 0


def test_native_modules_for_another_version_are_refused_before_composing(empty, tmp_path):
    built = native(tmp_path / "build", "new", 137)
    modules = Tree()
    modules.add("node_modules/@a/sqlite/build/Release/m.node", regular(built))
    check_native(modules, "node-24")
    with pytest.raises(DrumheadError) as refused:
        check_native(modules, "node")
    assert refused.value.message == (
        "/node_modules/@a/sqlite/build/Release/m.node was built for Node.js 24, and node is Node.js 18; require "
        "node-24 in meta/package.yaml, or run `npm rebuild` with that version"
    )
    modules.add("node_modules/@a/sqlite/build/Release/other.node", regular(native(tmp_path / "b", "node-api", 1)))
    with pytest.raises(DrumheadError, match="m.node was built for"):
        check_native(modules, "node")


@pytest.mark.parametrize("place", ["prebuilds/linux-x64/node.abi{}.node", "lib/binding/node-v{}-linux-x64/m.node"])
def test_one_of_several_builds_must_fit(tmp_path, place):
    modules = Tree()
    for abi in (108, 127):
        path = f"node_modules/sqlite/{place.format(abi)}"
        modules.add(path, regular(native(tmp_path / str(abi), "new", abi)))
    check_native(modules, "node")
    check_native(modules, "node-22")
    with pytest.raises(DrumheadError, match="was built for Node.js 18"):
        check_native(modules, "node-24")
