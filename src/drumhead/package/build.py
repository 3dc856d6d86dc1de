"""Build a package from a recipe: turn packages of Debian, PyPI and npm into one archive. Nothing is installed."""

from __future__ import annotations

import asyncio
import posixpath
import re
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.closure import complete, index_of
from drumhead.debian.accounts import DECLARATIONS, Accounts, declarations
from drumhead.debian.archive import Archive
from drumhead.debian.deb import read_deb
from drumhead.debian.sources import find_suites
from drumhead.download import new_client
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.package.records import Origin, Package
from drumhead.patterns import match_any
from drumhead.python.bytecode import Interpreter, only_bytecode
from drumhead.report import silent
from drumhead.tree import Tree, directory, regular, symlink

if TYPE_CHECKING:
    from drumhead.debian.archive import DebianPackage
    from drumhead.home import Home
    from drumhead.package.records import Recipe
    from drumhead.package.store import PackageStore
    from drumhead.report import Report

WITH_LIBRARIES = {"runtime", "tool", "application"}
"""Kinds of packages that get the libraries of their programs from the dependencies of the Debian packages."""
LIBRARY_PACKAGE = re.compile(r"(.+-)?(lib|zlib).*")
"""Names of Debian packages that have libraries, such as libssl3 and ocl-icd-libopencl1."""
DOCUMENTATION = tuple(f"usr/share/{name}" for name in ("bug", "doc", "doc-base", "info", "lintian", "locale", "man"))
"""Directories that a recipe without `include` leaves out."""
MAX_DOWNLOAD = 1 << 30
MAX_UNPACKED = 3 << 30
"""The limit in bytes for one package. A larger one could not be pulled either (``store.unpacked_limit``)."""


async def build_package(home: Home, store: PackageStore, recipe: Recipe, report: Report = silent) -> Package:
    """Build `recipe` from current Debian packages and store it.

    Raises UNVERIFIED if a signature or digest is wrong, INCOMPLETE if a library or a named file is missing,
    UNSUPPORTED if the package is too large, NOT_FOUND, REMOTE.
    """
    async with new_client() as client:
        archive = await Archive.open(client, home.cache / "debian", await asyncio.to_thread(find_suites))
        main = _main_packages(archive, recipe)
        names = {package.name for package in main}
        libraries = [
            package
            for package in (archive.closure(tuple(names)) if recipe.kind in WITH_LIBRARIES else [])
            if package.name not in names and LIBRARY_PACKAGE.fullmatch(package.name)
        ]
        wanted = (*main, *libraries)
        _check_size(recipe, sum(package.size for package in wanted), MAX_DOWNLOAD, "downloads")
        fetched = await asyncio.gather(*(archive.fetch(package, report) for package in wanted))
        debs = dict(zip((package.name for package in wanted), fetched, strict=True))
        version = recipe.version or archive.find(recipe.version_of).version
    report(f"building {recipe.name} {version}", 0, 0)
    pinned = await asyncio.to_thread(_pinned, recipe, home.cache)
    return await asyncio.to_thread(_assemble, store, recipe, version, pinned, main, libraries, debs)


def _check_size(recipe: Recipe, size: int, limit: int, does: str) -> None:
    if size > limit:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"recipe {recipe.name} {does} {size >> 20} MiB, and the limit is {limit >> 20} MiB; use fewer packages",
        )


def _pinned(recipe: Recipe, cache: Path) -> Tree:
    """Return the files of the recipe's wheels at their paths there, and those of npm's packages in node_modules."""
    files = Tree()
    if recipe.wheels:
        from drumhead.python.wheels import unpack_wheels  # noqa: PLC0415 - few recipes have any

        files.update(unpack_wheels(recipe.wheels, cache))
    if recipe.npm:
        from drumhead.node.lock import unpack_packages  # noqa: PLC0415 - few recipes have any

        files.update(unpack_packages(recipe.npm, cache))
    return files


def _main_packages(archive: Archive, recipe: Recipe) -> list[DebianPackage]:
    """Return the Debian packages in a recipe. For a kernel, return the dependency of the named metapackage."""
    main = [archive.find(name) for name in recipe.debian]
    if recipe.kind == "kernel":
        main = [archive.find(package.depends[0][0]) for package in main]
    return main


def _assemble(
    store: PackageStore,
    recipe: Recipe,
    version: str,
    pinned: Tree,
    main: list[DebianPackage],
    libraries: list[DebianPackage],
    debs: dict[str, Path],
) -> Package:
    files, newest = _unpack([debs[package.name] for package in main])
    files.update(pinned)
    if recipe.kind == "kernel":
        from drumhead.package.kernel import kernel_tree  # noqa: PLC0415 - only kernels need LZ4

        tree, used = kernel_tree(files, recipe.modules), main
    else:
        tree = select_files(files, recipe)
        giving = {package: debs[package.name] for package in (*main, *libraries)}
        used = _used(main, _add_libraries(tree, giving, recipe))
        if recipe.bytecode >= 0:
            tree = _compile(tree, recipe.bytecode)
    _check_size(recipe, tree.size, MAX_UNPACKED, "takes")
    check_programs(recipe, tree)
    return store.add(
        tree,
        Package(
            name=recipe.name,
            version=version,
            kind=recipe.kind,
            description=recipe.description,
            created=datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if newest else "",
            archive="",
            archive_size=0,
            unpacked_size=tree.size,
            requires=recipe.requires,
            config_sets=dict(recipe.config_sets),
            origins=tuple(Origin(name=deb.name, version=deb.version, sha256=deb.sha256) for deb in used),
        ),
    )


def check_programs(recipe: Recipe, tree: Tree) -> None:
    """Check that the package has the programs of its config sets, unless another package may. Raises INCOMPLETE."""
    for name, command in recipe.config_sets.items():
        program = command.argv[0].removeprefix("/")
        known = tree.get(program) or tree.get(f"usr/{program}")
        if command.argv[0].startswith("/") and not known and not recipe.requires:
            raise DrumheadError(
                ErrorCode.INCOMPLETE,
                f"recipe {recipe.name}: config set {name} starts {command.argv[0]}, which the package does not have",
            )


def _used(main: list[DebianPackage], giving: list[DebianPackage]) -> list[DebianPackage]:
    return [*main, *(package for package in giving if package not in main)]


def _unpack(debs: list[Path]) -> tuple[Tree, int]:
    whole, newest = Tree(), 0
    for deb in debs:
        tree, time = read_deb(deb)
        whole.update(tree)
        newest = max(newest, time)
    return whole, newest


def select_files(files: Tree, recipe: Recipe) -> Tree:
    """Return the files that a recipe selects and creates. Raises INCOMPLETE for a pattern without a match."""
    include, exclude = recipe.include, recipe.exclude
    wanted = (lambda _path: True) if include is None else match_any(include)
    unwanted = match_any((*exclude, *DOCUMENTATION) if include is None else exclude)
    tree = files.filter(lambda path: wanted(path) and not unwanted(path) and files[path].kind != "directory")
    for pattern in include or ():
        if not any(map(match_any([pattern]), (path for path, _ in tree))):
            raise DrumheadError(ErrorCode.INCOMPLETE, f"recipe {recipe.name}: no file matches {pattern}")
    for source, place in recipe.move.items():
        _move(tree, files, recipe, source, place)
    for path in recipe.directories:
        tree.add(path, directory())
    for path, pattern in recipe.concatenate.items():
        named = match_any([pattern])
        parts = [entry.read() for name, entry in files if entry.kind == "file" and named(name)]
        tree.add(path, regular(b"".join(part if part.endswith(b"\n") else part + b"\n" for part in parts)))
    for path, text in recipe.files.items():
        tree.add(path, regular(text.encode()))
    for path, target in recipe.links.items():
        tree.add(path, symlink(target))
    for path, names in recipe.names.items():
        for name in names.split():
            tree.add(posixpath.join(posixpath.dirname(path), name), symlink(posixpath.basename(path)))
    _set_owners(tree, recipe)
    return tree


def _set_owners(tree: Tree, recipe: Recipe) -> None:
    """Give files their owners."""
    if not recipe.owners:
        return
    accounts = Accounts(declarations(tree))
    for path, owner in recipe.owners.items():
        owned = [(name, entry) for name, entry in tree if name == path or name.startswith(f"{path}/")]
        if not owned:
            raise DrumheadError(ErrorCode.INCOMPLETE, f"recipe {recipe.name}: there is no {path} to give to {owner}")
        try:
            uid, gid = accounts.numbers(owner)
        except KeyError as error:
            raise DrumheadError(
                ErrorCode.INCOMPLETE,
                f"recipe {recipe.name}: there is no account {error.args[0]} to give {path} to; declare it in a file "
                f"{DECLARATIONS}{recipe.name}.conf: u {error.args[0]} -",
            ) from None
        for name, entry in owned:
            tree.add(name, replace(entry, uid=uid, gid=gid))


def _move(tree: Tree, files: Tree, recipe: Recipe, source: str, place: str) -> None:
    """Put a file or a directory of `files` at another path in `tree`."""
    moved = [(path, entry) for path, entry in files if path == source or path.startswith(f"{source}/")]
    if not moved:
        raise DrumheadError(ErrorCode.INCOMPLETE, f"recipe {recipe.name}: there is no {source} to move")
    if tree.get(source):
        tree.remove(source)
    for path, entry in moved:
        tree.add(place + path.removeprefix(source), entry)


def _add_libraries(tree: Tree, debs: dict[DebianPackage, Path], recipe: Recipe) -> list[DebianPackage]:
    """Add the libraries that `tree` needs from `debs`. Return the packages that provided one."""
    if recipe.kind == "libraries":
        return []
    pool, owner = Tree(), {}
    for package, deb in debs.items():
        files, _ = read_deb(deb)
        shared = files.filter(lambda path: ".so" in posixpath.basename(path))
        pool.update(shared)
        owner.update({path: package for path, _ in shared})
    added, missing = complete(index_of(tree), index_of(pool))
    if missing:
        lacks = ", ".join(f"{lack.library} (for /{lack.path})" for lack in missing)
        raise DrumheadError(ErrorCode.INCOMPLETE, f"recipe {recipe.name} lacks {lacks}")
    for place, source in added.items():
        tree.add(place, pool[source])
    return sorted({owner[source] for source in added.values()}, key=lambda package: package.name)


def _compile(tree: Tree, optimize: int) -> Tree:
    with tempfile.TemporaryDirectory() as scratch:
        return only_bytecode(tree, Interpreter.unpack(tree, Path(scratch)), optimize=optimize)
