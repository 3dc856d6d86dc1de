"""Convert a Pipfile.lock into requirements."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import read_text
from drumhead.python.foreign.lines import check_any_hash, requirement_line, requirements_text
from drumhead.python.local import left_out_place, local_file
from drumhead.python.pyproject import convert
from drumhead.python.stale import check_pipfile_lock

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.manifest.records import PythonNeeds

WHAT = "a lock of Pipenv (`pipenv lock` writes one)"
SECTIONS = {"packages": "default", "dev": "develop", "dev-packages": "develop"}
"""Names of Pipenv's categories that are called otherwise in its lock."""
ARCHIVE = re.compile(r"://|\.(whl|zip|tar\.gz)$")
"""What Pipenv's `file` and `path` name if it is no directory."""
EXACT = re.compile(r"===?[^<>=!~*,]+")
"""The version of a package that Pipenv resolved. Of others it has ``*`` or ``==>=1``."""
RELEASE = re.compile(r"/[^/]+-(\d[^-/?#]*)(?:-[^/]*\.whl|\.tar\.gz|\.zip)(?:[?#]|$)")
"""The URL of a file of a release, with its version."""


class PipfilePackage(msgspec.Struct, frozen=True):
    """A package of a Pipfile.lock. It has no version if it does not come from an index.

    Pipenv writes files and directories as `file` or `path`, as they are in the Pipfile.
    """

    version: str = ""
    file: str = ""
    path: str = ""
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


def read_pipfile_lock(root: Path, name: str, needs: PythonNeeds) -> tuple[str, list[str]]:
    """Return the default packages of a Pipfile.lock, and those of chosen categories, as requirements with hashes, and
    those that are directories of the project. Raises MANIFEST.
    """
    text = read_text(root, name)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise manifest_error(name, 1, f"it is not {WHAT}: {error}") from error
    lock = convert(document, PipfileLock, name, WHAT)
    sources = {source.name: source.url for source in lock.meta.sources}
    lines, indexes, local = [], set(), set()
    check_pipfile_lock(root, name, lock.default)
    for package, facts in sorted({**_chosen(document, needs, name), **lock.default}.items()):
        place = facts.path or facts.file
        if place and not ARCHIVE.search(place):
            local.add(left_out_place(root, name.rpartition("/")[0], place, name))
            continue
        pinned, hashes = _unresolved(package, facts, name) or _pinned(root, package, facts, name)
        check_any_hash(package, hashes, name, "pipenv lock")
        lines.append(requirement_line(pinned, facts.markers, hashes))
        indexes.add(sources.get(facts.index, ""))
    return requirements_text(lines, indexes), sorted(local)


def _chosen(document: dict[str, Any], needs: PythonNeeds, name: str) -> dict[str, PipfilePackage]:
    """Return the packages of the categories that package.yaml chooses as groups. Raises MANIFEST."""
    packages: dict[str, PipfilePackage] = {}
    for group in needs.groups:
        if (section := document.get(SECTIONS.get(group, group))) is None:
            raise manifest_error(name, 1, f"it has no group {group}, which package.yaml names")
        packages |= convert(section, dict[str, PipfilePackage], name, WHAT)
    return packages


def _unresolved(package: str, facts: PipfilePackage, name: str) -> tuple[str, list[str]] | None:
    """Return a requirement that nothing fulfils for a package that Pipenv did not resolve, else None.

    Pipenv resolves no package whose markers exclude it where the lock is written. Installers skip the requirement if
    the markers exclude it from the guest too. Raises MANIFEST for one without markers.
    """
    if not facts.version or EXACT.fullmatch(facts.version):
        return None
    if not facts.markers:
        raise manifest_error(
            name, 1, f"{package} has no exact version; give its version, or its condition as markers, in Pipfile"
        )
    return f"{package}==0+not.locked.by.pipenv", [f"sha256:{'0' * 64}"]


def _pinned(root: Path, package: str, facts: PipfilePackage, name: str) -> tuple[str, list[str]]:
    """Return the requirement for exactly this package, and the hashes that it may have.

    Beside a file of a release Pipenv writes the hashes of all its files, but uv takes one alone for a file. Raises
    MANIFEST for what is not a file, which has a hash.
    """
    extras = f"[{','.join(facts.extras)}]" if facts.extras else ""
    place, hashes = facts.path or facts.file, facts.hashes
    if not place:
        if not facts.version:
            raise manifest_error(name, 1, f"{package} does not come from an index; name a release")
        return f"{package}{extras}{facts.version}", hashes
    if re.search(r"\s", place):
        raise manifest_error(name, 1, f"{package} is a file with a blank in its name; rename it")
    if "://" in place:
        release = RELEASE.search(place) if len(hashes) > 1 else None
        return f"{package}{extras}{f'=={release[1]}' if release else f' @ {place}'}", hashes
    if (file := local_file(root, name.rpartition("/")[0], f"file:{place}")) is not None:
        own = f"sha256:{hashlib.sha256((root / file).read_bytes()).hexdigest()}"
        hashes = [own] if own in hashes else hashes[:1]
    return f"{package}{extras} @ file:{place}", hashes
