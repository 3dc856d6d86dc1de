"""Install wheels with required hashes into a tree. Pure Python source distributions are built; nothing is compiled."""

from __future__ import annotations

import csv
import inspect
import io
import posixpath
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.elf import is_elf, shorten
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.patterns import match_any
from drumhead.python.distribution import BIN, SITE, scripts_of_wheels
from drumhead.python.lock import find_uv, why_uv_failed
from drumhead.python.requirements import PLATFORM, PYTHON, with_places
from drumhead.tree import Tree, regular, symlink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.python.lock import Lock

BUILDERS = ("setuptools==80.9.0", "wheel==0.45.1", "hatchling==1.27.0", "flit-core==3.12.0", "poetry-core==2.1.3")
"""Build tools for source distributions, with fixed versions for reproducible files."""
LEFT_OUT = (
    "**/__pycache__",
    # Only type checkers and compilers read these.
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.pxi",
    "**/*.c",
    "**/*.cpp",
    "**/*.h",
    "**/*.hash",
    "**/*.a",
    "multidict/_testcapi*",
    "**/py.typed",
    # Only test runners import these. The rest of a test suite may be part of a package (astropy.tests, django.test).
    "*/tests/**/test_*.py",
    "*/tests/**/*_test.py",
    "*/tests/**/conftest.py",
    # An installer recorded these about this host.
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/WHEEL",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    "*.dist-info/sboms",
)
TEST_DATA = re.compile(r"[^/]+/tests/.*(?<!\.py)(?<!\.so)", re.DOTALL)
"""What the tests of a package read: everything below ``tests`` that is not a module."""
PACKAGES = re.compile(r"lib(64)?/python[0-9.]+/(site|dist)-packages/")
"""The directory of the host's interpreter into which uv installs modules, below a prefix."""
HEADERS = "include/"
PYTHON_SCRIPT = re.compile(rb"\A#!(?:/bin/sh\n'''exec' [^\n]*\n' '''|[^\n]*python[^\n]*)\n")
"""The first line of a script for Python, or the first three if the path of uv's interpreter is long or has blanks."""
READS_STUB = b"attach_stub"
"""The function of lazy_loader with which a package (scikit-image, librosa) finds its own names in its ``.pyi``."""


def install(lock: Lock, cache: Path) -> Tree:
    """Return the files of every wheel in `lock`, in the guest's dist-packages, and their commands and data files.

    This blocks the calling thread. Downloads are cached in `cache`. Raises HOST_TOOL with uv's message if a hash
    differs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        name = "pylock.toml" if lock.file.endswith(".toml") else "requirements.txt"
        text = lock.text if name == "pylock.toml" else with_places(lock.text, Path(lock.directory))
        prefix = _install(Path(scratch), name, text, cache, "--prefix", lock.indexes)
        described = sorted(prefix.glob("lib*/python*/*-packages/*.dist-info"))
        refuse_compiled(described)
        tree = _read(prefix)
        tree.update(_top_levels(described))
        points = (place / "entry_points.txt" for place in described)
        tree.update(scripts_of_wheels(path.read_text() for path in points if path.is_file()))
        return tree


def unpack_wheels(pinned: Iterable[str], cache: Path) -> Tree:
    """Return the files of wheels (``NAME==VERSION --hash=sha256:…``) at their paths in the wheels.

    Debugging symbols of programs and libraries are removed. This blocks the calling thread. Raises HOST_TOOL with uv's
    message if a hash differs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = _install(Path(scratch), "requirements.txt", "\n".join(pinned), cache, "--target")
        tree = Tree()
        for path in sorted(target.rglob("*")):
            name = path.relative_to(target).as_posix()
            if path.is_symlink():
                tree.add(name, symlink(str(path.readlink())))
            elif path.is_file() and "__pycache__" not in path.parts:
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                tree.add(name, regular(_needed(name, path.read_bytes()), mode))
        return tree


def _install(
    scratch: Path, name: str, requirements: str, cache: Path, layout: str, indexes: tuple[str, ...] = ()
) -> Path:
    """Install the requirements, with hashes, into a directory in `scratch` and return the directory.

    `layout` is ``--prefix``, which keeps data files apart from modules, or ``--target``. Every index is asked for
    every package: the hash decides which file is taken.
    """
    (scratch / name).write_text(requirements)
    constraints = scratch / "constraints.txt"
    constraints.write_text("\n".join(BUILDERS))
    target = scratch / "site"
    command: list[str | Path] = [find_uv(), "pip", "install", "--quiet", "--python", sys.executable, layout, target]
    command += ["--python-version", PYTHON, "--python-platform", PLATFORM, "--build-constraints", constraints]
    command += ["--require-hashes", "--no-deps", "--link-mode", "copy", "--cache-dir", cache / "uv"]
    command += ["--requirements", scratch / name, "--index-strategy", "unsafe-best-match", *indexes]
    host.run(command, cwd=scratch, reason=why_uv_failed)
    return target


def refuse_compiled(described: Iterable[Path]) -> None:
    """Refuse wheels that were compiled on this host, because they fit this host and not the guest. Raises UNSUPPORTED.

    `described` are their directories ``….dist-info``. PyPI accepts no wheels with the tag ``linux_…``, so such a tag
    marks a local build of a source distribution.
    """
    for wheel in (place / "WHEEL" for place in described):
        if wheel.is_file() and re.search(r"^Tag: .*-linux_\w+$", wheel.read_text(), re.MULTILINE):
            name = wheel.parent.name.removesuffix(".dist-info")
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"{name} has no wheel for the guest and would be compiled on this host; choose a version with a wheel",
            )


def _read(prefix: Path) -> Tree:
    """Return what was installed: modules in dist-packages, commands and data files below /usr/local, as with pip."""
    left_out = match_any(LEFT_OUT)
    tree = Tree()
    for path in sorted(prefix.rglob("*")):
        installed = path.relative_to(prefix).as_posix()
        name = PACKAGES.sub("", installed, 1)
        if (left_out(name) and not _is_read(path)) or installed.startswith((".", HEADERS)):
            continue
        place = f"usr/local/{name}" if name == installed else f"{SITE}/{name}"
        if path.is_symlink():
            tree.add(place, symlink(str(path.readlink())))
        elif path.is_file() and not TEST_DATA.fullmatch(name):
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            contents = _needed(name, path.read_bytes())
            if place.startswith(f"{BIN}/"):
                contents = PYTHON_SCRIPT.sub(b"#!/usr/bin/python3\n", contents)
            tree.add(place, regular(contents, mode))
    return tree


def _top_levels(described: Iterable[Path]) -> Tree:
    """Return a ``top_level.txt`` for each wheel without one: the names that can be imported from it.

    ``importlib.metadata.packages_distributions`` would take them from the sources in RECORD, and most are left out.
    """
    tree = Tree()
    for place in described:
        record, listed = place / "RECORD", place / "top_level.txt"
        if listed.is_file() or not record.is_file():
            continue
        paths = (path for path, *_ in csv.reader(record.read_text().splitlines()))
        names = {path.partition("/")[0] if "/" in path else inspect.getmodulename(path) or "" for path in paths}
        text = "".join(f"{name}\n" for name in sorted(names) if name.isidentifier() and name != "__pycache__")
        tree.add(f"{SITE}/{place.name}/{listed.name}", regular(text.encode()))
    return tree


def with_records(tree: Tree) -> Tree:
    """Return `tree` with a RECORD for each wheel that names the files that are there, for ``importlib.metadata.files``.

    It has neither hashes nor sizes, because files are shortened and compiled after the installer recorded them.
    """
    result = Tree()
    result.update(tree)
    for path, entry in tree:
        if not path.endswith(".dist-info/RECORD"):
            continue
        site = posixpath.dirname(posixpath.dirname(path))
        listed = [name for name, *_ in csv.reader(entry.read().decode().splitlines())]
        found = {name if _place(site, name) in tree else f"{name}c" for name in listed}
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            (name, "", "") for name in sorted(found) if _place(site, name) in tree
        )
        result.add(path, regular(text.getvalue().encode()))
    return result


def _place(site: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(site, name))


def _is_read(stub: Path) -> bool:
    """Return whether a file is a stub that the module beside it reads when it is imported, or one of typeshed.

    jedi completes names for IPython and Jupyter from the copy of typeshed that it has.
    """
    source = stub.with_suffix(".py")
    reads = "typeshed" in stub.parts or (source.is_file() and READS_STUB in source.read_bytes())
    return stub.suffix == ".pyi" and reads


def _needed(name: str, contents: bytes) -> bytes:
    """Return a file without debugging symbols or, for METADATA, without the long description."""
    if name.endswith(".dist-info/METADATA"):
        return contents.partition(b"\n\n")[0] + b"\n"
    return shorten(contents) if is_elf(contents) else contents
