"""Build a package from its recipe: from Debian packages to one canonical archive. Nothing is installed."""

from __future__ import annotations

import asyncio
import posixpath
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.closure import complete, index_of
from drumhead.debian.archive import Archive
from drumhead.debian.deb import read_deb
from drumhead.debian.sources import find_suites
from drumhead.download import new_client
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.package.records import Origin, Package
from drumhead.patterns import match_any
from drumhead.python.bytecode import Interpreter, only_bytecode
from drumhead.report import silent
from drumhead.tree import Tree, regular, symlink

if TYPE_CHECKING:
    from drumhead.debian.archive import DebianPackage
    from drumhead.home import Home
    from drumhead.package.records import Recipe
    from drumhead.package.store import PackageStore
    from drumhead.report import Report

WITH_LIBRARIES = {"runtime", "tool", "application"}
"""Kinds of packages that get the libraries of their programs from the dependencies of the Debian packages."""
LIBRARY_PACKAGE = re.compile(r"(lib|zlib)[^/]*")


async def build_package(home: Home, store: PackageStore, recipe: Recipe, report: Report = silent) -> Package:
    """Build `recipe` from current Debian packages and store it.

    Raises UNVERIFIED when a signature or digest is wrong, INCOMPLETE when a library is missing, NOT_FOUND, REMOTE.
    """
    async with new_client() as client:
        archive = await Archive.open(client, home.cache / "debian", find_suites())
        main = _main_packages(archive, recipe)
        names = {package.name for package in main}
        libraries = [
            package
            for package in (archive.closure(tuple(names)) if recipe.kind in WITH_LIBRARIES else [])
            if package.name not in names and LIBRARY_PACKAGE.fullmatch(package.name)
        ]
        debs = dict(
            zip(
                (package.name for package in (*main, *libraries)),
                await asyncio.gather(*(archive.fetch(package, report) for package in (*main, *libraries))),
                strict=True,
            )
        )
        version = archive.find(recipe.version_of).version
    report(f"building {recipe.name} {version}", 0, 0)
    return await asyncio.to_thread(_assemble, store, recipe, version, main, libraries, debs)


def _main_packages(archive: Archive, recipe: Recipe) -> list[DebianPackage]:
    """Return the packages that a recipe names. For a kernel, that is the dependency of the named metapackage."""
    main = [archive.find(name) for name in recipe.debian]
    if recipe.kind == "kernel":
        main = [archive.find(package.depends[0][0]) for package in main]
    return main


def _assemble(
    store: PackageStore,
    recipe: Recipe,
    version: str,
    main: list[DebianPackage],
    libraries: list[DebianPackage],
    debs: dict[str, Path],
) -> Package:
    files, newest = _unpack([debs[package.name] for package in main])
    if recipe.kind == "kernel":
        from drumhead.package.kernel import kernel_tree  # noqa: PLC0415 - only kernels need LZ4

        tree, used = kernel_tree(files, recipe.modules), main
    else:
        tree = select_files(files, recipe)
        giving = {package: debs[package.name] for package in (*main, *libraries)}
        used = _used(main, _add_libraries(tree, giving, recipe))
        if recipe.bytecode >= 0:
            tree = _compile(tree, recipe.bytecode)
    return store.add(
        tree,
        Package(
            name=recipe.name,
            version=version,
            kind=recipe.kind,
            description=recipe.description,
            created=datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            archive="",
            archive_size=0,
            unpacked_size=tree.size,
            requires=recipe.requires,
            config_sets=recipe.config_sets,
            origins=tuple(Origin(name=deb.name, version=deb.version, sha256=deb.sha256) for deb in used),
        ),
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
    wanted, unwanted = match_any(recipe.include), match_any(recipe.exclude)
    tree = files.filter(lambda path: wanted(path) and not unwanted(path) and files[path].kind != "directory")
    for pattern in recipe.include:
        if not any(map(match_any([pattern]), (path for path, _ in tree))):
            raise DrumheadError(ErrorCode.INCOMPLETE, f"recipe {recipe.name}: no file matches {pattern}")
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
    return tree


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
