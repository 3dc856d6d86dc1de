"""The files of a layer: paths, modes and contents. Readers produce trees, writers consume them.

A tree has directories, regular files and symbolic links, with their owners (root, unless a manifest sets another). It
has no times, devices or hard links, so trees with equal digests are the same file system on any machine at any time.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USR_MERGED = ("bin", "sbin", "lib", "lib64")
"""Root directories that Debian keeps below usr/. In every guest, the root has links to them."""
MAX_PATH, MAX_NAME, MAX_DEPTH = 4096, 255, 100
"""Linux's limits for a path and for a name (bytes), and drumhead's limit for the nesting of directories."""
MAX_ID = (1 << 32) - 1
"""The number that no user or group can have; smaller numbers are valid."""
CHUNK = 1 << 20
"""The largest piece of a file that is in memory if its contents are on disk, in bytes."""
MAX_LINKS = 40
"""Symbolic links followed before a path counts as a loop, as in Linux."""


class Spool:
    """A file without a name in `directory` for contents that memory might not hold. It is freed with the last entry
    that refers to it, even if the process is killed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def _file(self) -> IO[bytes]:
        file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed by the next line
        weakref.finalize(self, file.close)
        return file

    def add(self, contents: IO[bytes], mode: int) -> Entry:
        """Return a file of a tree with all of `contents`, which are read now."""
        start, size, state = self._file.tell(), 0, hashlib.sha256()
        while chunk := contents.read(CHUNK):
            self._file.write(chunk)
            state.update(chunk)
            size += len(chunk)
        self._file.flush()
        return Entry("file", mode, size, state.hexdigest(), Spooled(self, start))

    def read(self, size: int, place: int) -> bytes:
        return os.pread(self._file.fileno(), size, place)


@dataclass(frozen=True, slots=True)
class Spooled:
    """Contents that begin at a place of a spool."""

    spool: Spool
    place: int


@dataclass(frozen=True, slots=True)
class Entry:
    """The entry of one path. `mode` holds permission bits only. `source` is a file's contents, or the host file or the
    place in a spool with them.

    `digest` is the SHA-256 of the contents in hexadecimal, `target` is the target of a symbolic link. `uid` and `gid`
    are the numbers of the owner and the group.
    """

    kind: Literal["directory", "file", "symlink"]
    mode: int
    size: int = 0
    digest: str = ""
    source: bytes | Path | Spooled = b""
    target: str = ""
    uid: int = 0
    gid: int = 0

    def read(self) -> bytes:
        """Return a regular file's contents. Raises CONFLICT if it is a host file that changed since it was listed."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield a regular file's contents, with only one chunk in memory. Raises CONFLICT as ``read`` does, before the
        last chunk.
        """
        if isinstance(self.source, bytes):
            yield self.source
            return
        if isinstance(self.source, Spooled):
            for done in range(0, self.size, CHUNK):
                yield self.source.spool.read(min(CHUNK, self.size - done), self.source.place + done)
            return
        state, left, chunk = hashlib.sha256(), self.size, b""
        with _opened(self.source) as file:
            while left and (following := file.read(min(CHUNK, left))):
                if chunk:
                    yield chunk
                chunk = following
                state.update(chunk)
                left -= len(chunk)
            # A file that grew after its size was asked, and before its digest was, has another size than its contents.
            grown = file.read(1)
        if left or grown or state.hexdigest() != self.digest:
            raise _changed(self.source)
        yield chunk

    def starts_with(self, magic: bytes) -> bool:
        """Return whether a regular file's contents start with `magic`. Read no more of the file than that."""
        if isinstance(self.source, bytes):
            return self.source.startswith(magic)
        if isinstance(self.source, Spooled):
            return self.source.spool.read(min(len(magic), self.size), self.source.place) == magic
        with _opened(self.source) as file:
            return file.read(len(magic)) == magic


def _opened(source: Path) -> IO[bytes]:
    try:
        return source.open("rb")
    except FileNotFoundError as error:
        raise _changed(source) from error


def _changed(source: Path) -> DrumheadError:
    return DrumheadError(ErrorCode.CONFLICT, f"{source} changed while it was read; try again, or ignore it")


def directory(mode: int = 0o755) -> Entry:
    return Entry("directory", mode)


def regular(contents: bytes, mode: int = 0o644) -> Entry:
    return Entry("file", mode, len(contents), hashlib.sha256(contents).hexdigest(), contents)


def host_file(path: Path, mode: int, size: int, digest: str) -> Entry:
    """Return a file whose contents stay on the host until they are written into a layer."""
    return Entry("file", mode, size, digest, path)


def symlink(target: str) -> Entry:
    return Entry("symlink", 0o777, target=target)


class Tree:
    """A mapping of paths to entries. Paths are relative and without ``.`` or ``..``, such as ``usr/bin/python3``.

    Missing parents of a path are added as directories with mode 0755. Iteration is sorted by path, parents first.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __getitem__(self, path: str) -> Entry:
        return self._entries[path]

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        for path in sorted(self._entries, key=lambda name: name.split("/")):
            yield path, self._entries[path]

    def get(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def add(self, path: str, entry: Entry) -> None:
        """Add `entry` at `path` and replace an existing entry. A directory keeps the contents of the one it
        replaces.
        """
        path = clean_path(path)
        if not path:
            return
        missing = self.missing_parents(path)
        parent = posixpath.dirname(missing[-1] if missing else path)
        if parent and self._entries[parent].kind != "directory":
            raise DrumheadError(ErrorCode.CONFLICT, f"/{path} cannot be placed: /{parent} is not a directory")
        for parent in missing:
            self._entries[parent] = directory()
        if entry.kind != "directory":
            self.remove(path)
        self._entries[path] = entry

    def missing_parents(self, path: str) -> list[str]:
        """Return the directories that ``add`` makes for `path`, a clean path, from the innermost outwards."""
        missing = []
        parent = posixpath.dirname(path)
        while parent and parent not in self._entries:
            missing.append(parent)
            parent = posixpath.dirname(parent)
        return missing

    def remove(self, path: str) -> None:
        """Remove `path` and everything below it."""
        old = self._entries.pop(path, None)
        if old is not None and old.kind == "directory":
            below = path + "/"
            for name in [name for name in self._entries if name.startswith(below)]:
                del self._entries[name]

    def update(self, other: Tree) -> None:
        """Copy all of `other` over this tree.

        Follow links to directories in this tree, as when copying onto a disk. A directory replaces a link to a file.
        """
        plain = {""}  # directories that both trees reach without a link; empty after a link was followed
        for path, entry in other:
            old = self._entries.get(path)
            if path.rpartition("/")[0] not in plain or (old and old.kind == "symlink" and entry.kind == "directory"):
                plain.clear()
                self._add_through_links(path, entry)
                continue
            if entry.kind == "directory":
                plain.add(path)
            elif old:
                self.remove(path)
            self._entries[path] = entry

    def _add_through_links(self, path: str, entry: Entry) -> None:
        place = self.resolve(path, follow_last=entry.kind == "directory")
        old = self._entries.get(place)
        if entry.kind == "directory" and old and old.kind == "file":
            place = self.resolve(path, follow_last=False)
            self.remove(place)
        self.add(place, entry)

    def filter(self, keep: Callable[[str], bool]) -> Tree:
        """Return a tree of the entries that `keep` accepts and their parent directories."""
        kept = Tree()
        for path, entry in self:
            if keep(path):
                parent = posixpath.dirname(path)
                while parent and parent not in kept:
                    kept._entries[parent] = self._entries[parent]
                    parent = posixpath.dirname(parent)
                kept._entries[path] = entry
        return kept

    def resolve(self, path: str, *, follow_last: bool = True) -> str:
        """Return `path` with its links inside this tree followed. Names that do not exist are kept as they are.

        Raises CONFLICT for a loop.
        """
        done: list[str] = []
        todo = [part for part in path.split("/") if part not in {"", "."}][::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            here = "/".join([*done, part])
            entry = self._entries.get(here)
            if entry is None or entry.kind != "symlink" or not (todo or follow_last):
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise DrumheadError(ErrorCode.CONFLICT, f"/{path} is a loop of symbolic links")
            if entry.target.startswith("/"):
                done.clear()
            todo.extend([part for part in entry.target.split("/") if part not in {"", "."}][::-1])
        return "/".join(done)

    @property
    def size(self) -> int:
        """The sum of the sizes of the tree's files, in bytes."""
        return sum(entry.size for entry in self._entries.values())

    def digest(self) -> str:
        """Return the SHA-256 over every path, kind, mode, owner and content, which identifies this tree."""
        state = hashlib.sha256()
        for path, entry in self:
            owner = f"\0{entry.uid}:{entry.gid}" if entry.uid or entry.gid else ""
            line = f"{path}\0{entry.kind}\0{entry.mode:o}\0{entry.digest or entry.target}{owner}\n"
            state.update(line.encode(errors="surrogateescape"))
        return state.hexdigest()


def clean_path(path: str) -> str:
    """Return `path` relative to the root and without ``.``. Raises USAGE for ``..``."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise DrumheadError(ErrorCode.USAGE, f"{path} points outside the tree")
    return "/".join(parts)


def within_limits(path: str) -> str:
    """Return a path from outside, or the target of a link. Raises UNSUPPORTED if it is too long or too deep."""
    if "\0" in path or len(path.encode(errors="surrogateescape")) >= MAX_PATH or path.count("/") > MAX_DEPTH:
        raise DrumheadError(ErrorCode.UNSUPPORTED, f"a path of the archive is longer than {MAX_PATH} bytes or too deep")
    if any(len(part.encode(errors="surrogateescape")) > MAX_NAME for part in path.split("/")):
        raise DrumheadError(ErrorCode.UNSUPPORTED, f"a name in the archive is longer than {MAX_NAME} bytes")
    return path
