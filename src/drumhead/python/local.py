"""Local packages of a project: requirements that are directories of it, such as ``-e .`` and ``./lib/shared``.

Their files are in the image with the rest of the project, so only their dependencies are installed. Wheels of the
project (``./wheels/x-1-py3-none-any.whl``) are installed.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import TYPE_CHECKING

from drumhead.errors import manifest_error
from drumhead.manifest.project import is_inside
from drumhead.manifest.project_files import is_there, read_text
from drumhead.python.requirements import EDITABLE, LOCAL, LOCAL_FILE, requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

DESCRIPTIONS = ("pyproject.toml", "setup.py", "setup.cfg")
"""Files that say what a local package depends on."""
READ_BY_BACKENDS = (".txt", ".in", ".cfg", ".py")
"""Endings of files from which build backends read dependencies."""
VERSION_CONTROL = re.compile(r"(^|@\s*)(git|hg|svn|bzr)\+")


def local_directory(root: Path, base: str, requirement: str) -> str | None:
    """Return the directory of the project that a requirement names, relative to `root`, or None if it names none.

    `base` is the directory from which relative paths count. A directory outside the project is None, too.
    """
    path = re.split(r"\[|\s*;|\s+#", EDITABLE.sub("", requirement).rpartition("@ file:")[2].strip(), maxsplit=1)[0]
    if path.startswith("/"):
        return None
    place = posixpath.normpath(posixpath.join(base, path))
    if place.startswith("..") or not (place == "." or is_inside(root, place)):
        return None
    known = any(is_there(root, posixpath.join(place, name)) for name in DESCRIPTIONS)
    return place if known and (root / place).is_dir() else None


def descriptions(root: Path, directory: str) -> list[str]:
    """Return the texts that decide what a local package depends on."""
    names = [posixpath.normpath(posixpath.join(directory, name)) for name in DESCRIPTIONS]
    return [read_text(root, name) for name in names if is_there(root, name)]


def local_files(root: Path, base: str, text: str, file: str) -> list[str]:
    """Return the wheels and source distributions of the project that a requirements file names, with their digests.

    `base` is the directory from which relative paths count, also in included files. Raises MANIFEST for a path with a
    hash that leads elsewhere. A whole ``file:///`` URL with a hash is taken as it is, like one of a server.
    """
    found = []
    for line, words in requirement_lines(text):
        if words.startswith("-") or not LOCAL.match(words):
            continue
        if (place := local_file(root, base, words)) is not None:
            found.append(f"{place} {hashlib.sha256((root / place).read_bytes()).hexdigest()}")
        elif "--hash=" in words and "file:///" not in words:
            raise manifest_error(file, line, f"{words.split(' --hash')[0]} is not a file of the project; move it there")
    return found


def local_file(root: Path, base: str, requirement: str) -> str | None:
    """Return the path of the wheel or source distribution of the project that a requirement names, or None."""
    match = LOCAL_FILE.match(requirement)
    place = posixpath.normpath(posixpath.join(base, match["path"])) if match else ""
    return place if match and is_inside(root, place) and (root / place).is_file() else None


def files_of_backends(root: Path, directory: str, document: object) -> list[str]:
    """Return the texts of files that a pyproject.toml names and a build backend may read dependencies from."""
    names = {text for text in _texts(document) if text.endswith(READ_BY_BACKENDS)} | {"setup.py", "setup.cfg"}
    places = sorted(posixpath.normpath(posixpath.join(directory, name)) for name in names)
    return [f"{place}\n{read_text(root, place)}" for place in places if is_inside(root, place)]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def leave_out_local(text: str, root: Path, base: str, file: str) -> tuple[str, list[str]]:
    """Return exact requirements without those that are directories of the project, and these directories.

    Raises MANIFEST for any other requirement without a hash; `file` is the file that it came from.
    """
    lines = text.splitlines()
    left_out: list[str] = []
    for number, words in reversed(list(requirement_lines(text))):
        if "--hash=sha256:" in words or (words.startswith("--") and not words.startswith("--editable")):
            continue
        left_out.append(left_out_place(root, base, words, file))
        del lines[number - 1]
    return "\n".join(lines) + "\n", sorted(set(left_out))


def left_out_place(root: Path, base: str, requirement: str, file: str) -> str:
    """Return the directory of the project that a requirement of `file` without a hash names. Raises MANIFEST."""
    place = local_directory(root, base, requirement)
    if place is None:
        raise manifest_error(file, 1, _refusal(EDITABLE.sub("", requirement).split(";")[0].strip()))
    return place


def _refusal(requirement: str) -> str:
    if VERSION_CONTROL.search(requirement):
        return f"{requirement} comes from version control and has no hash; name a released version"
    return (
        f"{requirement} is no Python package in the project and has no hash; name a released version, or move it inside"
    )


def local_notice(directories: Iterable[str]) -> str:
    """Return a notice about local packages, or an empty string if there are none."""
    named = " and ".join("the project itself" if place == "." else place for place in directories)
    return f"of {named}, only the dependencies were installed; the files are in the image anyway" if named else ""
