"""Resolve the names that a project requires to packages: current names, old names, dependencies."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.package.recipe import find_alias, known_recipes
from drumhead.package.records import PackageRef
from drumhead.package.store import parse_ref

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.home import Home
    from drumhead.package.records import Package
    from drumhead.package.store import PackageStore
    from drumhead.report import Report

PART_OF_GUEST = re.compile(r"(eu\.mikelangelo-project\.)?(app\.)?osv\.(bootstrap|loader|mkfs|cpiod)")
"""Packages of Capstan that are part of every drumhead guest."""


def resolve_names(required: Iterable[str]) -> tuple[list[PackageRef], list[str]]:
    """Return the packages that the names in `require` refer to, in order and without duplicates.

    Also return notices for old names.
    """
    refs: list[PackageRef] = []
    notices = []
    for text in required:
        ref = parse_ref(text)
        if PART_OF_GUEST.fullmatch(ref.name):
            notices.append(f"{text} is part of every guest and no longer needed")
            continue
        if ref.name not in known_recipes() and (recipe := find_alias(ref.name)):
            notices.append(f"{text} is an old name; the image gets the current {recipe.name} ({recipe.description})")
            ref = PackageRef(name=recipe.name)
        if all(other.name != ref.name for other in refs):
            refs.append(ref)
    return refs, notices


async def gather_packages(
    home: Home, store: PackageStore, refs: Iterable[PackageRef], report: Report
) -> tuple[list[Package], list[str]]:
    """Return the packages that `refs` name and their dependencies, dependencies first, and notices.

    A package that is not in the local store is pulled from a remote, or else built from its recipe. Raises NOT_FOUND.
    """
    found: dict[str, Package] = {}
    notices: list[str] = []
    seen: set[str] = set()  # packages may require one another

    async def take(ref: PackageRef, asked_by: str) -> None:
        if ref.name in seen:
            return
        seen.add(ref.name)
        package = await _obtain(home, store, ref, report, notices, asked_by)
        for name in package.requires:
            await take(parse_ref(name), f"package {package.name}")
        found[ref.name] = package

    for ref in refs:
        await take(ref, "the project")
    return list(found.values()), notices


async def _obtain(
    home: Home, store: PackageStore, ref: PackageRef, report: Report, notices: list[str], asked_by: str
) -> Package:
    try:
        return store.find(ref)
    except DrumheadError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
    from drumhead.package.build import build_package  # noqa: PLC0415 - a warm store needs no network, nor its import
    from drumhead.package.remote.remotes import pull_package  # noqa: PLC0415

    recipe = known_recipes().get(ref.name)
    pulled = None
    try:
        pulled = await pull_package(home, store, ref, report)
    except DrumheadError as failure:
        # If a remote does not answer, build the package. A wrong answer is an error.
        if failure.code is not ErrorCode.REMOTE or recipe is None or ref.version:
            raise
        notices.append(f"{failure.message}; {ref.name} is built here instead")
    if pulled:
        notices.append(f"package {pulled.name} {pulled.version} was pulled")
        return pulled
    if recipe is None or ref.version:
        raise _unknown(ref, asked_by)
    built = await build_package(home, store, recipe, report)
    notices.append(f"package {built.name} {built.version} was built here")
    return built


def _unknown(ref: PackageRef, asked_by: str) -> DrumheadError:
    near = _nearest_recipe(ref)
    hint = f" (did you mean {near}?)" if near else ""
    asked = f"{ref.name}@{ref.version}" if ref.version else ref.name
    new = f"drumhead package new {ref.name.removeprefix('osv.')}"
    own = "" if near or ref.version else f", and `{new}` writes a recipe for a program of Debian"
    return DrumheadError(
        ErrorCode.NOT_FOUND,
        f"{asked_by} requires {asked}, which no store, remote or recipe has{hint}; "
        f"`drumhead package search` lists the available packages{own}",
    )


def _nearest_recipe(ref: PackageRef) -> str:
    """Return the recipe that was probably meant, such as node-20 for node@20.11; empty if there is none."""
    major = ref.version.partition(".")[0]
    of_major = f"{ref.name}-{major}"
    if ref.version and of_major in known_recipes():
        return of_major
    near = difflib.get_close_matches(ref.name, known_recipes(), n=1)
    return near[0] if near else ""
