"""Find native modules (``.node``) that were built for another version of Node.js than that of the image.

A module that uses Node-API works with every version. Other modules work with one NODE_MODULE_VERSION only. It is in the
name of the function that Node.js calls (``node_register_module_v127``), or in the record with which the module
registers itself. See the documentation of Node.js, "C++ addons", and node.h (``struct node_module``).
"""

from __future__ import annotations

import posixpath
import re
import struct
from typing import TYPE_CHECKING

from drumhead.elf import is_elf, read_linkage, writable_parts
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.node.versions import MODULE_ABI, RELEASES

if TYPE_CHECKING:
    from drumhead.tree import Tree

INTERMEDIATE = "/obj.target/"
"""A directory of node-gyp with intermediate files."""
REGISTER = re.compile(r"node_register_module_v(\d{1,9})")
KNOWN = frozenset({46, 48, 51, 57, 59, 64, 67, 72, 79, 83, 88, 93, 102, 108, 111, 115, 120, 127, 131, 137})
"""NODE_MODULE_VERSION of Node.js 4 to 24."""
MAX_FLAGS = 8


def check_native(modules: Tree, package: str) -> None:
    """Refuse native modules that were built for another Node.js than that of `package`. Raises UNSUPPORTED.

    If a module has several builds (in the layouts of prebuildify and node-pre-gyp), one of them must fit.
    """
    wanted = MODULE_ABI[package]
    builds: dict[str, list[tuple[str, int]]] = {}
    for path, entry in modules:
        if entry.kind == "file" and path.endswith(".node") and INTERMEDIATE not in path:
            contents = entry.read()
            if is_elf(contents):
                builds.setdefault(_module(path), []).append((path, module_abi(contents)))
    for found in builds.values():
        if any(abi in {0, wanted} for _, abi in found):
            continue
        path, abi = found[0]
        names = {number: name for name, number in MODULE_ABI.items()}
        made_for = f"Node.js {RELEASES[names[abi]].partition('.')[0]}" if abi in names else f"module version {abi}"
        hint = f"require {names[abi]} in meta/package.yaml, or run " if abi in names else "run "
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"/{path} was built for {made_for}, and {package} is Node.js {RELEASES[package].partition('.')[0]}; {hint}"
            f"`npm rebuild` with that version",
        )


def _module(path: str) -> str:
    """Return a key that all builds of one native module share: its npm package and its name.

    prebuildify names builds ``prebuilds/linux-x64/node.abi127.node``, node-pre-gyp
    ``lib/binding/node-v127-…/NAME.node``.
    """
    head, _, tail = path.rpartition("node_modules/")
    names = tail.split("/")
    owner = posixpath.join(head, *(names[:2] if names[0].startswith("@") else names[:1]))
    return f"{owner} {'prebuilds' if 'prebuilds' in names else names[-1]}"


def module_abi(elf: bytes) -> int:
    """Return the NODE_MODULE_VERSION that a native module was built for, or 0 for Node-API or if it is unknown."""
    linkage = read_linkage(elf)
    for name in linkage.exports:
        if found := REGISTER.fullmatch(name):
            return int(found[1])
    if "node_module_register" not in linkage.imports or any(name.startswith("napi_") for name in linkage.imports):
        return 0
    return _registered(elf)


def _registered(elf: bytes) -> int:
    """Return the version in the module's ``struct node_module``: int version, unsigned flags, void *handle (0), …

    The struct is in writable data, aligned to 8 bytes. Return 0 if there is more than one candidate.
    """
    found = set()
    for part in writable_parts(elf):
        for at in range(0, len(part) - 15, 8):
            version, flags, handle = struct.unpack_from("<iIQ", part, at)
            if version in KNOWN and flags <= MAX_FLAGS and handle == 0:
                found.add(version)
    return found.pop() if len(found) == 1 else 0
