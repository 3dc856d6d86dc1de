"""Convert the lock files of Poetry and Pipenv into requirements with hashes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import is_there, read_text
from drumhead.python.pyproject import PoetrySpec, PoetrySpecs, PyProject, convert, read_pyproject, read_toml
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
Markers = frozenset[frozenset[str]]
"""The conditions under which a package is needed: any of them, and of each of these all markers."""
ALWAYS: Markers = frozenset({frozenset()})


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
            raise manifest_error(name, 1, f"{package} does not come from an index and has no hash; name a release")
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
    for package_name, markers in sorted(_walk(packages, wanted, name).items()):
        for package in packages[package_name]:
            if package.source.type != "legacy":
                raise manifest_error(
                    name, 1, f"{package_name} comes from {package.source.type} and has no hash; name a released version"
                )
            indexes.add(package.source.url)
            own = package.markers
            hashes = [one.hash for one in package.files or lock.metadata.files.get(package.name, [])]
            _check_hashes(package_name, hashes, name, "poetry lock")
            condition = own.get("main", "") if isinstance(own, dict) else own
            condition = _decided(condition, set(map(normal_name, needs.extras))) or _marker(markers)
            lines.append(_line(f"{package.name}=={package.version}", condition, hashes))
    return _text(lines, indexes)


def _decided(marker: str, extras: set[str]) -> str:
    """Return a marker that holds where `marker` does when the project is installed with `extras`.

    An installer of requirements knows no extras of the project and would leave these packages out.
    """
    return OF_EXTRA.sub(lambda found: HOLDS[(found[1] == "==") == (normal_name(found[2]) in extras)], marker)


def _check_hashes(package: str, hashes: list[str], name: str, command: str) -> None:
    if not any(map(SHA256.fullmatch, hashes)):
        raise manifest_error(name, 1, f"{package} has no SHA-256 hash; a newer version of `{command}` writes one")


def _roots(document: PyProject, needs: PythonNeeds, file: str) -> dict[str, tuple[Markers, tuple[str, ...]]]:
    """Return the names of the main dependencies of a pyproject.toml, each with markers and extras.

    Several requirements of one package (for one version of Python each) are united.
    """
    project, poetry = document.project, document.tool.poetry
    optional, extras = project.optional_dependencies, poetry.extras
    chosen: set[str] = set()
    texts = list(project.dependencies)
    for extra in needs.extras:
        if extra not in optional and extra not in extras:
            raise manifest_error(file, 1, f"it has no extra {extra}, which package.yaml names")
        texts += optional.get(extra, [])
        chosen |= {normal_name(one) for one in extras.get(extra, [])}
    asked: list[tuple[str, str, list[str]]] = []
    for text in texts:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;\s*(.*))?", text)
        if match:
            asked.append((normal_name(match[1]), match[3] or "", re.findall(r"[\w.-]+", match[2] or "")))
    standard = {name for name, _, _ in asked}
    for package, specs in poetry.dependencies.items():
        name = normal_name(package)
        for spec in specs if isinstance(specs, list) else [specs]:
            facts = spec if isinstance(spec, PoetrySpec) else PoetrySpec()
            if name not in {"python", *standard} and (not facts.optional or name in chosen):
                asked.append((name, facts.markers, facts.extras))
    found: dict[str, tuple[Markers, tuple[str, ...]]] = {}
    for name, marker, more in asked:
        markers, known = found.get(name, (frozenset(), ()))
        found[name] = _either(markers, _both(ALWAYS, marker)), tuple(dict.fromkeys((*known, *more)))
    return found


def _walk(
    packages: dict[str, list[PoetryPackage]], roots: dict[str, tuple[Markers, tuple[str, ...]]], file: str
) -> dict[str, Markers]:
    """Return every package that `roots` need, with the markers under which it is needed."""
    needed: dict[str, Markers] = {}
    seen: set[tuple[str, Markers, tuple[str, ...]]] = set()
    todo = [(name, markers, extras) for name, (markers, extras) in roots.items()]
    while todo:
        name, markers, extras = todo.pop()
        if name not in packages:
            raise manifest_error(file, 1, f"it does not have {name}; `poetry lock` writes it again")
        needed[name] = _either(needed.get(name, frozenset()), markers)
        if (name, needed[name], extras) in seen or len(_marker(needed[name])) > MAX_MARKER:
            continue
        seen.add((name, needed[name], extras))
        for package in packages[name]:
            for child, edge, asked in _edges(package, extras):
                todo.append((child, _both(needed[name], edge), asked))
    return needed


def _edges(package: PoetryPackage, extras: tuple[str, ...]) -> list[tuple[str, str, tuple[str, ...]]]:
    offered = {normal_name(extra): names for extra, names in package.extras.items()}
    optional = {
        normal_name(re.split(r"[\s\[(<>=!~;]", text, maxsplit=1)[0])
        for extra in extras
        for text in offered.get(normal_name(extra), [])
    }
    found = []
    for name, specs in package.dependencies.items():
        for spec in specs if isinstance(specs, list) else [specs]:
            facts = spec if isinstance(spec, PoetrySpec) else PoetrySpec()
            marker = facts.markers
            if facts.optional or "extra ==" in marker:
                if normal_name(name) not in optional:
                    continue
                marker = ""
            found.append((normal_name(name), marker, tuple(facts.extras)))
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
