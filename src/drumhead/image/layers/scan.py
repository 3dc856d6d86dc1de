"""Read a project's files into a tree. Files that have not changed since the last scan are not read again."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import file_digest, replacing
from drumhead.errors import MALFORMED, DrumheadError, ErrorCode
from drumhead.manifest.ignore import read_ignore
from drumhead.node.lock import is_installed
from drumhead.tree import Tree, directory, host_file, symlink

if TYPE_CHECKING:
    from drumhead.manifest.records import Project

Stamp = tuple[int, int, int, int, str]
"""Size, mtime and ctime in nanoseconds, inode, and the SHA-256 of the contents at that time."""
UNSETTLED_NS = 20_000_000
"""A file that changed this recently may change again without a new time stamp, so the next scan reads it again."""


class Scan:
    """The files of one project, except drumhead's home, whose directory `cache` is given. Without `trust`, every file
    is read.
    """

    def __init__(self, project: Project, cache: Path, *, trust: bool) -> None:
        self._root = Path(project.root)
        self._project = project
        self._ignored, _ = read_ignore(self._root)
        self._store = os.path.relpath(cache.parent.resolve(), self._root.resolve())
        self._file = cache / "scans" / f"{hashlib.sha256(os.fsencode(project.root)).hexdigest()}.json"
        self._known = self._load() if trust else {}
        self._seen: dict[str, Stamp] = {}
        self.notices: list[str] = []
        self.has_modules = False
        """Whether the tree has a file of the node_modules beside the project's lock."""

    def tree(self) -> Tree:
        """Return the project's files at their paths in the image.

        Raises UNSUPPORTED for sockets, pipes, devices and what cannot be read, CONFLICT for a file that was removed
        meanwhile.
        """
        tree = Tree()
        try:
            for place, source in (self._project.package.files or {"/": "."}).items():
                self._add(tree, place.strip("/"), posixpath.normpath(source))
        except FileNotFoundError as error:
            raise DrumheadError(
                ErrorCode.CONFLICT, f"{error.filename} changed while it was read; try again, or ignore it"
            ) from error
        except OSError as error:
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"{error.filename} cannot be read: {error.strerror}; make it readable, or ignore it",
            ) from error
        with replacing(self._file) as temporary:
            temporary.write_bytes(msgspec.json.encode(self._seen))
        return tree

    def _add(self, tree: Tree, place: str, source: str) -> None:
        if source != "." and (self._ignored(source) or source == self._store):
            return
        path = self._root / source
        _check_text(path, source)
        facts = path.lstat()
        mode = stat.S_IMODE(facts.st_mode) & ~0o022
        self.has_modules |= is_installed(source) and not stat.S_ISDIR(facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            if place:
                tree.add(place, directory(mode | 0o755))  # a umask must not close /usr or /etc of the image
            for name in sorted(os.listdir(path)):  # noqa: PTH208 - names only, many of them
                self._add(tree, posixpath.join(place, name), posixpath.normpath(posixpath.join(source, name)))
        elif stat.S_ISLNK(facts.st_mode):
            target = str(path.readlink())
            _check_text(path, target)
            if posixpath.normpath(posixpath.join(posixpath.dirname(source), target)).split("/")[0] == "..":
                self.notices.append(_outside(source, target))
            tree.add(place, symlink(target))
        elif stat.S_ISREG(facts.st_mode):
            if source.endswith("/pyvenv.cfg"):
                self.notices.append(_environment(posixpath.dirname(source)))
            tree.add(place, host_file(path, mode, facts.st_size, self._digest(path, source, facts)))
        else:
            raise DrumheadError(
                ErrorCode.UNSUPPORTED, f"{path} is not a file, directory or symbolic link; ignore it or remove it"
            )

    def _digest(self, path: Path, source: str, facts: os.stat_result) -> str:
        stamp = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
        known = self._known.get(source)
        digest = known[4] if known and known[:4] == stamp else file_digest(path)
        if max(facts.st_mtime_ns, facts.st_ctime_ns) < time.time_ns() - UNSETTLED_NS:
            self._seen[source] = (*stamp, digest)
        return digest

    def _load(self) -> dict[str, Stamp]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Stamp])
        except (OSError, *MALFORMED):
            return {}


def _outside(source: str, target: str) -> str:
    advice = "npm install --install-links" if "node_modules" in source.split("/") else "cp -rL"
    return f"{source} is a link to {target}, outside the project, which the image lacks; copy it (`{advice}`)"


def _environment(directory: str) -> str:
    return (
        f"{directory} is a virtual environment of this host; if the image gets its dependencies from a lock, leave it "
        f"out: add /{directory} to .drumheadignore"
    )


def _check_text(path: Path, text: str) -> None:
    """Refuse a name or a link target that is not UTF-8, because records are JSON. Raises UNSUPPORTED."""
    if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
        raise DrumheadError(
            ErrorCode.UNSUPPORTED, f"{str(path)!a}: its name or target is not UTF-8; rename or ignore it"
        )
