"""Check a pylock.toml."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import read_text
from drumhead.python.local import left_out_place
from drumhead.python.pyproject import convert, read_toml

if TYPE_CHECKING:
    from pathlib import Path

PYLOCK_TABLE = re.compile(r"^(?=[ \t]*\[\[[ \t]*packages[ \t]*\]\])", re.MULTILINE)


class PylockSource(msgspec.Struct, frozen=True):
    """A file or a directory of a package in a pylock.toml."""

    path: str = ""
    hashes: dict[str, str] = {}


class PylockPackage(msgspec.Struct, frozen=True):
    """A package of a pylock.toml."""

    name: str
    wheels: list[PylockSource] = []
    sdist: PylockSource | None = None
    archive: PylockSource | None = None
    directory: PylockSource | None = None
    vcs: object = None


class Pylock(msgspec.Struct, frozen=True, rename="kebab"):
    """A pylock.toml (packaging.python.org, pylock.toml specification)."""

    lock_version: str
    packages: list[PylockPackage] = []


def read_pylock(root: Path, name: str) -> tuple[str, list[str]]:
    """Return a pylock.toml without the packages that are directories of the project, and these directories.

    Raises MANIFEST for any other package without a hash.
    """
    packages = convert(read_toml(root, name), Pylock, name, "a pylock.toml").packages
    places = [_check_pylock(root, name, package) for package in packages]
    head, *tables = PYLOCK_TABLE.split(text := read_text(root, name))
    local = sorted({place for place in places if place is not None})
    if local and len(tables) != len(packages):
        raise manifest_error(name, 1, f"it has no table [[packages]] for each package, such as {local[0]}")
    if local:
        text = head + "".join(table for table, place in zip(tables, places, strict=True) if place is None)
    return text, local


def _check_pylock(root: Path, name: str, package: PylockPackage) -> str | None:
    """Return the directory of the project that a package is, or None if it is files with hashes. Raises MANIFEST."""
    if package.vcs:
        raise manifest_error(name, 1, f"{package.name} comes from version control and has no hash; name a release")
    if package.directory:
        return left_out_place(root, name.rpartition("/")[0], package.directory.path, name)
    files = [*package.wheels, *(one for one in (package.sdist, package.archive) if one)]
    if not files or any("sha256" not in file.hashes for file in files):
        raise manifest_error(name, 1, f"{package.name} has no file, or one without a SHA-256 hash")
    if any(file.path for file in files):
        raise manifest_error(name, 1, f"{package.name} is a file of this host; name a release, or give its URL")
    return None
