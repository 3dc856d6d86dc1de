"""Convert a poetry.lock into requirements."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import is_there
from drumhead.python.foreign.lines import check_any_hash, requirement_line, requirements_text
from drumhead.python.local import left_out_place
from drumhead.python.pyproject import PoetrySpecs, PyProject, convert, fits, read_pyproject, read_toml, specs_of
from drumhead.python.requirements import normal_name

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.manifest.records import PythonNeeds

OF_EXTRA = re.compile(r"""\bextra\s*(==|!=)\s*["']([^"']*)["']""")
"""A condition of Poetry 2 on the extras of the project, in the markers of packages that only some of these need."""
HOLDS = {True: 'python_version >= "3"', False: 'python_version < "3"'}
"""Markers that always and never hold."""
MAX_MARKER = 2000
"""The length of a marker above which a package does not widen those of its dependencies further."""
Markers = frozenset[frozenset[str]]
"""The conditions under which a package is needed: any of them, and of each of these all markers."""
ALWAYS: Markers = frozenset({frozenset()})


class Requirement(NamedTuple):
    """A package that a project or another package needs, with Poetry's constraint on its version."""

    name: str
    version: str
    markers: Markers
    extras: tuple[str, ...]


class PoetryFile(msgspec.Struct, frozen=True):
    """A file of a package."""

    hash: str


class PoetrySource(msgspec.Struct, frozen=True):
    """The source of a package that is not on the public index."""

    type: str = "legacy"
    url: str = ""


class PoetryPackage(msgspec.Struct, frozen=True):
    """A package of a poetry.lock."""

    name: str
    version: str
    files: list[PoetryFile] = []
    source: PoetrySource = PoetrySource()
    markers: str | dict[str, str] = ""
    groups: list[str] = []
    dependencies: dict[str, PoetrySpecs] = {}
    extras: dict[str, list[str]] = {}


class PoetryMetadata(msgspec.Struct, frozen=True):
    """The part ``metadata`` of a poetry.lock: the files of packages up to version 1.1 of the format."""

    files: dict[str, list[PoetryFile]] = {}


class PoetryLock(msgspec.Struct, frozen=True):
    """A poetry.lock."""

    package: list[PoetryPackage] = []
    metadata: PoetryMetadata = PoetryMetadata()


def read_poetry_lock(root: Path, name: str, needs: PythonNeeds) -> tuple[str, list[str]]:
    """Return the packages of a poetry.lock that the main dependencies and chosen groups need, with hashes, and those
    that are directories of the project. Raises MANIFEST.

    The pyproject.toml beside the lock says what is needed.
    """
    lock = convert(read_toml(root, name), PoetryLock, name, "a lock of Poetry (`poetry lock` writes one)")
    beside = name.replace("poetry.lock", "pyproject.toml")
    if not is_there(root, beside):
        raise manifest_error(beside, 1, "it does not exist, but a poetry.lock belongs to it")
    wanted = _roots(read_pyproject(root, beside), needs, beside)
    packages: dict[str, list[PoetryPackage]] = {}
    for package in lock.package:
        packages.setdefault(normal_name(package.name), []).append(package)
    lines, indexes, local = [], set(), set()
    for package_name, asked in sorted(_walk(packages, wanted, name).items()):
        for package, markers in _versions(packages[package_name], asked, name):
            if package.source.type == "directory":
                local.add(left_out_place(root, name.rpartition("/")[0], package.source.url, name))
                continue
            requirement = _pinned(package, name)
            indexes.add(package.source.url if package.source.type == "legacy" else "")
            own = package.markers
            hashes = [one.hash for one in package.files or lock.metadata.files.get(package.name, [])]
            check_any_hash(package_name, hashes, name, "poetry lock")
            condition = _of_groups(own, package.groups, needs) if isinstance(own, dict) else own
            condition = _decided(condition, set(map(normal_name, needs.extras))) or _marker(markers)
            lines.append(requirement_line(requirement, condition, hashes))
    return requirements_text(lines, indexes), sorted(local)


def _of_groups(markers: dict[str, str], groups: list[str], needs: PythonNeeds) -> str:
    """Return the marker of a package that several groups need, from the markers for each of these groups.

    A group without a marker needs the package always.
    """
    chosen = {"main", *map(normal_name, needs.groups)} & {*map(normal_name, groups or markers)}
    found = {normal_name(group): marker for group, marker in markers.items()}
    return _joined(" or ", sorted({found[group] for group in chosen})) if chosen <= found.keys() else ""


def _pinned(package: PoetryPackage, name: str) -> str:
    """Return the requirement for exactly this package. Raises MANIFEST if it is not a file, which has a hash."""
    match package.source:
        case PoetrySource(type="legacy"):
            return f"{package.name}=={package.version}"
        case PoetrySource(type="url" | "file" as kind, url=url) if re.fullmatch(r"\S+", url):
            return f"{package.name} @ {url if kind == 'url' else f'file:{url}'}"
    raise manifest_error(
        name, 1, f"{package.name} comes from {package.source.type} and has no hash; name a released version"
    )


def _decided(marker: str, extras: set[str]) -> str:
    """Return a marker that holds where `marker` does when the project is installed with `extras`.

    An installer of requirements knows no extras of the project and would leave these packages out.
    """
    return OF_EXTRA.sub(lambda found: HOLDS[(found[1] == "==") == (normal_name(found[2]) in extras)], marker)


def _roots(document: PyProject, needs: PythonNeeds, file: str) -> list[Requirement]:
    """Return the main dependencies of a pyproject.toml, and those of chosen groups, that hold for the guest.

    Raises MANIFEST.
    """
    project, poetry = document.project, document.tool.poetry
    chosen: set[str] = set()
    texts = list(project.dependencies)
    for extra in needs.extras:
        name = normal_name(extra)
        if name not in project.extras and name not in poetry.extras:
            raise manifest_error(file, 1, f"it has no extra {extra}, which package.yaml names")
        texts += project.extras.get(name, [])
        chosen |= {normal_name(one) for one in poetry.extras.get(name, [])}
    of_groups, tables = document.groups(needs.groups, file)
    asked: list[Requirement] = []
    for text in [*texts, *of_groups]:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;\s*(.*))?", text)
        if match:
            extras_of = tuple(re.findall(r"[\w.-]+", match[2] or ""))
            asked.append(Requirement(normal_name(match[1]), "*", _both(ALWAYS, match[3] or ""), extras_of))
    standard = {one.name for one in asked}
    # Beside standard dependencies that are not dynamic, Poetry's own table says no more than where those come from.
    is_whole = bool(project.dependencies) and not {"dependencies", "optional-dependencies"} & set(project.dynamic)
    for package, specs in () if is_whole else poetry.dependencies.items():
        name = normal_name(package)
        asked += [
            Requirement(name, facts.version, _both(ALWAYS, facts.markers), tuple(facts.extras))
            for facts in specs_of(specs)
            if name not in {"python", *standard} and (not facts.optional or name in chosen)
        ]
    return asked + [
        Requirement(normal_name(package), facts.version, _both(ALWAYS, facts.markers), tuple(facts.extras))
        for table in tables
        for package, specs in table.dependencies.items()
        for facts in specs_of(specs)
    ]


def _walk(
    packages: dict[str, list[PoetryPackage]], roots: list[Requirement], file: str
) -> dict[str, list[tuple[str, Markers]]]:
    """Return every package that `roots` need, with the versions that are asked for and the markers of each request."""
    found: dict[str, list[tuple[str, Markers]]] = {}
    needed: dict[str, Markers] = {}
    seen: set[tuple[str, Markers, tuple[str, ...]]] = set()
    todo = roots[::-1]
    while todo:
        name, version, markers, extras = todo.pop()
        if name not in packages:
            if frozenset() not in markers:
                continue  # Poetry leaves out what it never installs with the Python versions of the project
            raise manifest_error(file, 1, f"it does not have {name}; `poetry lock` writes it again")
        found.setdefault(name, []).append((version, markers))
        needed[name] = _either(needed.get(name, frozenset()), markers)
        if (name, needed[name], extras) in seen or len(_marker(needed[name])) > MAX_MARKER:
            continue
        seen.add((name, needed[name], extras))
        for package in packages[name]:
            todo += _edges(package, extras, needed[name])
    return found


def _versions(
    found: list[PoetryPackage], asked: list[tuple[str, Markers]], file: str
) -> list[tuple[PoetryPackage, Markers]]:
    """Return the packages of one name that are needed, with the markers under which they are. Raises MANIFEST.

    Poetry 2 says in the lock when each version is meant. In locks of Poetry 1, only requests that not all versions fit
    tell them apart.
    """
    markers: Markers = frozenset()
    for _, more in asked:
        markers = _either(markers, more)
    if len(found) == 1 or all(package.markers for package in found):
        return [(package, markers) for package in found]
    chosen: dict[str, Markers] = {}
    for constraint, more in asked:
        matching = [package.version for package in found if fits(package.version, constraint)]
        for version in matching if len(matching) < len(found) else []:
            chosen[version] = _either(chosen.get(version, frozenset()), more)
    if not chosen or (len(chosen) > 1 and ALWAYS in chosen.values()):
        versions = " and ".join(package.version for package in found)
        raise manifest_error(
            file,
            1,
            f"it has {found[0].name} {versions} and does not say when each is meant; `poetry lock` of Poetry 2 does",
        )
    return [(package, chosen[package.version]) for package in found if package.version in chosen]


def _edges(package: PoetryPackage, extras: tuple[str, ...], markers: Markers) -> list[Requirement]:
    """Return what a package needs that is needed with `extras` under `markers`."""
    offered = {normal_name(extra): names for extra, names in package.extras.items()}
    optional = {
        normal_name(re.split(r"[\s\[(<>=!~;]", text, maxsplit=1)[0])
        for extra in extras
        for text in offered.get(normal_name(extra), [])
    }
    found = []
    for name, specs in package.dependencies.items():
        for facts in specs_of(specs):
            marker = facts.markers
            if facts.optional or "extra ==" in marker:
                if normal_name(name) not in optional:
                    continue
                marker = ""
            found.append(Requirement(normal_name(name), facts.version, _both(markers, marker), tuple(facts.extras)))
    return found


def _either(one: Markers, other: Markers) -> Markers:
    """Return markers that hold if one of two does, without conditions that are narrower than another."""
    whole = one | other
    return frozenset(condition for condition in whole if not any(wider < condition for wider in whole))


def _both(markers: Markers, marker: str) -> Markers:
    return frozenset(condition | {marker} for condition in markers) if marker else markers


def _marker(markers: Markers) -> str:
    """Return one marker for `markers`; empty means always."""
    return _joined(" or ", sorted(_joined(" and ", sorted(condition)) for condition in markers))


def _joined(word: str, markers: list[str]) -> str:
    return markers[0] if len(markers) == 1 else word.join(f"({marker})" for marker in markers)
