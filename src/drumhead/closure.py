"""Find the shared libraries that a tree needs by reading ELF files as ld.so(8) does, without running them."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Literal

import msgspec

from drumhead.elf import MAGIC, Needs, read_needs
from drumhead.tree import USR_MERGED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.tree import Entry, Tree

LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64")
"""The directories that the loader of Debian's libc searches without a cache."""
PARTS = {"LIB": "lib/x86_64-linux-gnu", "PLATFORM": "x86_64"}


class Node(msgspec.Struct, frozen=True, array_like=True):
    """One path of an index. `digest` is the SHA-256 of a file's contents."""

    kind: Literal["directory", "file", "symlink"]
    mode: int = 0
    digest: str = ""
    target: str = ""
    needs: Needs | None = None
    uid: int = 0
    gid: int = 0


Index = dict[str, Node]
"""A tree without file contents, for following links, finding libraries and comparing trees. The cache keeps it as
JSON."""


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A library or an interpreter that `path` needs and that does not exist."""

    path: str
    library: str


def index_of(tree: Tree) -> Index:
    """Return the index of a tree after reading its ELF files."""
    return {path: index_entry(entry) for path, entry in tree}


def index_entry(entry: Entry) -> Node:
    needs = read_needs(entry.read()) if entry.kind == "file" and entry.starts_with(MAGIC) else None
    return Node(entry.kind, entry.mode, entry.digest, entry.target, needs, entry.uid, entry.gid)


def merge(indexes: Iterable[Index]) -> Index:
    """Return the index of stacked layers; later layers cover earlier ones."""
    whole: Index = {}
    for index in indexes:
        whole.update(index)
    return whole


def follow(index: Index, path: str) -> str:
    """Follow the links of `path` in `index`. Return the final path, or an empty string if it does not exist or
    loops.
    """
    done: list[str] = []
    todo = _parts(index, path)
    links = 0
    while todo:
        part = todo.pop()
        if part == ".":
            continue
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([*done, part])
        node = index.get(here)
        if node is None:
            return ""
        if node.kind != "symlink":
            done.append(part)
            continue
        links += 1
        if links > 40:
            return ""
        if node.target.startswith("/"):
            done.clear()
            todo.extend(_parts(index, node.target))
        else:
            todo.extend([part for part in node.target.split("/") if part][::-1])
    return "/".join(done)


def _parts(index: Index, path: str) -> list[str]:
    """Return the names of a path in reverse order. If the tree has no /lib or /bin of its own, look below usr/."""
    parts = [part for part in path.split("/") if part]
    if parts and parts[0] in USR_MERGED and parts[0] not in index:
        parts.insert(0, "usr")
    return parts[::-1]


def find_missing(index: Index) -> list[Missing]:
    """Return every library that a file of `index` needs and that the loader would not find, sorted by path.

    A library elsewhere in the tree counts as found, because its wheel or program loads it before it is needed.
    """
    names = {posixpath.basename(path) for path in index}
    found = []
    for path, node in sorted(index.items()):
        if node.needs is None:
            continue
        if node.needs.interpreter and not follow(index, node.needs.interpreter):
            found.append(Missing(path=path, library=node.needs.interpreter))
        found += [
            Missing(path=path, library=library)
            for library in node.needs.libraries
            if library not in names and not _load(index, path, library)
        ]
    return found


def complete(index: Index, pool: Index) -> tuple[dict[str, str], list[Missing]]:
    """Return the libraries of `pool` that `index` lacks, and those that the pool does not have either.

    The first result maps each path to add to the pool's file for it. (An SONAME is usually a link in its package; the
    file itself is placed under the requested name.)
    """
    added: dict[str, str] = {}
    whole = dict(index)
    while True:
        missing = find_missing(whole)
        progress = False
        for lack in missing:
            place, source = _in_pool(pool, lack.library, _searched(whole, lack.path))
            if source and place not in whole:
                added[place] = source
                whole[place] = pool[source]
                for parent in _parents(place):
                    whole.setdefault(parent, Node("directory"))
                progress = True
        if not progress:
            return added, missing


def _in_pool(pool: Index, library: str, directories: list[str]) -> tuple[str, str]:
    """Return the path that a library gets in the image, and its path in the pool.

    `directories` are those where the loader looks. Debian's libraries with alternatives (BLAS) are below them, and an
    installation script links them from there.
    """
    if library.startswith("/"):
        source = follow(pool, library)
        return f"usr/lib64/{posixpath.basename(library)}" if source else "", source
    for directory in directories:
        if source := follow(pool, f"{directory}/{library}"):
            return "/".join(_parts(pool, f"{directory}/{library}")[::-1]), source
    below = (path for path in sorted(pool) if path.endswith(f"/{library}") and path.startswith(LIBRARY_DIRECTORIES[0]))
    source = next(filter(None, (follow(pool, path) for path in below)), "")
    return f"{LIBRARY_DIRECTORIES[0]}/{library}" if source else "", source


def _searched(index: Index, path: str) -> list[str]:
    """Return the directories in which the loader looks for the libraries of a file."""
    needs, origin = index[path].needs, posixpath.dirname(path)
    return [*(_expand(directory, origin) for directory in (needs.search if needs else ())), *LIBRARY_DIRECTORIES]


def _load(index: Index, path: str, library: str) -> str:
    if "/" in library:
        return follow(index, library)
    for directory in _searched(index, path):
        if found := follow(index, f"{directory}/{library}"):
            return found
    return ""


def _expand(directory: str, origin: str) -> str:
    for name, value in {"ORIGIN": "/" + origin, **PARTS}.items():
        directory = directory.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return posixpath.normpath(directory)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
