"""Read the lock files of other tools: convert those of Poetry and Pipenv into requirements, and check a pylock.toml."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import is_there, read_text
from drumhead.python.local import left_out_place
from drumhead.python.pyproject import PoetrySpecs, PyProject, convert, fits, read_pyproject, read_toml, specs_of
from drumhead.python.stale import check_pipfile_lock, normal_name

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.manifest.records import PythonNeeds

PUBLIC_INDEX = re.compile(r"https?://pypi(\.python)?\.org/simple/?")
SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
OF_EXTRA = re.compile(r"""\bextra\s*(==|!=)\s*["']([^"']*)["']""")
"""A condition of Poetry 2 on the extras of the project, in the markers of packages that only some of these need."""
HOLDS = {True: 'python_version >= "3"', False: 'python_version < "3"'}
"""Markers that always and never hold."""
MAX_MARKER = 2000
"""The length of a marker above which a package does not widen those of its dependencies further."""
PYLOCK_TABLE = re.compile(r"^(?=[ \t]*\[\[[ \t]*packages[ \t]*\]\])", re.MULTILINE)
Markers = frozenset[frozenset[str]]
"""The conditions under which a package is needed: any of them, and of each of these all markers."""
ALWAYS: Markers = frozenset({frozenset()})


class Requirement(NamedTuple):
    """A package that a project or another package needs, with Poetry's constraint on its version."""

    name: str
    version: str
    markers: Markers
    extras: tuple[str, ...]


class PipfilePackage(msgspec.Struct, frozen=True):
    """A package of a Pipfile.lock. It has no version if it does not come from an index."""

    version: str = ""
    hashes: list[str] = []
    markers: str = ""
    index: str = ""
    extras: list[str] = []


class PipfileSource(msgspec.Struct, frozen=True):
    """An index of a Pipfile.lock."""

    name: str
    url: str


class PipfileMeta(msgspec.Struct, frozen=True):
    """The part ``_meta`` of a Pipfile.lock."""

    sources: list[PipfileSource] = []


class PipfileLock(msgspec.Struct, frozen=True):
    """A Pipfile.lock."""

    default: dict[str, PipfilePackage]
    meta: PipfileMeta = msgspec.field(default=PipfileMeta(), name="_meta")


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
    dependencies: dict[str, PoetrySpecs] = {}
    extras: dict[str, list[str]] = {}


class PoetryMetadata(msgspec.Struct, frozen=True):
    """The part ``metadata`` of a poetry.lock: the files of packages up to version 1.1 of the format."""

    files: dict[str, list[PoetryFile]] = {}


class PoetryLock(msgspec.Struct, frozen=True):
    """A poetry.lock."""

    package: list[PoetryPackage] = []
    metadata: PoetryMetadata = PoetryMetadata()


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


def read_pipfile_lock(root: Path, name: str) -> str:
    """Return the default packages of a Pipfile.lock as requirements with hashes. Raises MANIFEST."""
    what = "a lock of Pipenv (`pipenv lock` writes one)"
    text = read_text(root, name)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise manifest_error(name, 1, f"it is not {what}: {error}") from error
    lock = convert(document, PipfileLock, name, what)
    sources = {source.name: source.url for source in lock.meta.sources}
    lines, indexes = [], set()
    check_pipfile_lock(root, name, lock.default)
    for package, facts in sorted(lock.default.items()):
        if not facts.version:
            raise manifest_error(name, 1, f"{package} does not come from an index; name a release")
        if not facts.version.startswith("=="):
            raise manifest_error(name, 1, f"{package} has no exact version; `pipenv lock` writes one")
        extras = f"[{','.join(facts.extras)}]" if facts.extras else ""
        _check_hashes(package, facts.hashes, name, "pipenv lock")
        lines.append(_line(f"{package}{extras}{facts.version}", facts.markers, facts.hashes))
        indexes.add(sources.get(facts.index, ""))
    return _text(lines, indexes)


def read_poetry_lock(root: Path, name: str, needs: PythonNeeds) -> str:
    """Return the packages of a poetry.lock that the main dependencies need, with hashes. Raises MANIFEST.

    The pyproject.toml beside the lock says which dependencies are main ones.
    """
    lock = convert(read_toml(root, name), PoetryLock, name, "a lock of Poetry (`poetry lock` writes one)")
    beside = name.replace("poetry.lock", "pyproject.toml")
    if not is_there(root, beside):
        raise manifest_error(beside, 1, "it does not exist, but a poetry.lock belongs to it")
    wanted = _roots(read_pyproject(root, beside), needs, beside)
    packages: dict[str, list[PoetryPackage]] = {}
    for package in lock.package:
        packages.setdefault(normal_name(package.name), []).append(package)
    lines, indexes = [], set()
    for package_name, asked in sorted(_walk(packages, wanted, name).items()):
        for package, markers in _versions(packages[package_name], asked, name):
            requirement = _pinned(package, name)
            indexes.add(package.source.url if package.source.type == "legacy" else "")
            own = package.markers
            hashes = [one.hash for one in package.files or lock.metadata.files.get(package.name, [])]
            _check_hashes(package_name, hashes, name, "poetry lock")
            condition = own.get("main", "") if isinstance(own, dict) else own
            condition = _decided(condition, set(map(normal_name, needs.extras))) or _marker(markers)
            lines.append(_line(requirement, condition, hashes))
    return _text(lines, indexes)


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


def _check_hashes(package: str, hashes: list[str], name: str, command: str) -> None:
    if not any(map(SHA256.fullmatch, hashes)):
        raise manifest_error(name, 1, f"{package} has no SHA-256 hash; a newer version of `{command}` writes one")


def _roots(document: PyProject, needs: PythonNeeds, file: str) -> list[Requirement]:
    """Return the main dependencies of a pyproject.toml that hold for the guest. Raises MANIFEST."""
    project, poetry = document.project, document.tool.poetry
    optional, extras = project.optional_dependencies, poetry.extras
    chosen: set[str] = set()
    texts = list(project.dependencies)
    for extra in needs.extras:
        if extra not in optional and extra not in extras:
            raise manifest_error(file, 1, f"it has no extra {extra}, which package.yaml names")
        texts += optional.get(extra, [])
        chosen |= {normal_name(one) for one in extras.get(extra, [])}
    asked: list[Requirement] = []
    for text in texts:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;\s*(.*))?", text)
        if match:
            extras_of = tuple(re.findall(r"[\w.-]+", match[2] or ""))
            asked.append(Requirement(normal_name(match[1]), "*", _both(ALWAYS, match[3] or ""), extras_of))
    standard = {one.name for one in asked}
    for package, specs in poetry.dependencies.items():
        name = normal_name(package)
        asked += [
            Requirement(name, facts.version, _both(ALWAYS, facts.markers), tuple(facts.extras))
            for facts in specs_of(specs)
            if name not in {"python", *standard} and (not facts.optional or name in chosen)
        ]
    return asked


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


def _line(requirement: str, marker: str, hashes: list[str]) -> str:
    condition = f" ; {marker}" if marker else ""
    return " \\\n    ".join([requirement + condition, *(f"--hash={one}" for one in sorted(hashes))])


def _text(lines: list[str], indexes: set[str]) -> str:
    more = [f"--extra-index-url {url}" for url in sorted(indexes) if url and not PUBLIC_INDEX.fullmatch(url)]
    return "\n".join([*more, *lines]) + "\n"
