"""Find out whether a lock was made before the dependencies beside it were changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import is_there
from drumhead.python.pyproject import ProjectTable, read_pyproject, read_toml
from drumhead.python.requirements import has_hashes, included_files, normal_name, requirement_lines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from drumhead.manifest.records import PythonNeeds

NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*([^;]*)(;?)")
SOURCES = ("requirements.txt", "pyproject.toml")


def check_uv_lock(root: Path, name: str, needs: PythonNeeds) -> str:
    """Refuse a uv.lock that lacks a dependency of the pyproject.toml beside it. Return a notice for another version.

    Raises MANIFEST.
    """
    beside = name.replace("uv.lock", "pyproject.toml")
    packages = cast("Any", read_toml(root, name)).get("package", [])
    packages = [one for one in packages if isinstance(one, dict)] if isinstance(packages, list) else []
    document = read_pyproject(root, beside)
    asked = _dependencies(document.project, needs)
    of_groups, _ = document.groups(needs.groups, beside)
    locked = {normal_name(str(one.get("name"))) for one in packages}
    if lacking := _lacking([*asked, *of_groups], locked):
        raise manifest_error(name, 1, f"it does not have {lacking}, which {beside} names; `uv lock` writes it again")
    known = _requires(packages)
    for text in asked:
        match = NAME.match(text)
        if not match or match[3] or "@" in text:
            continue
        if _clauses(match[2]) not in known.get(normal_name(match[1]), [_clauses(match[2])]):
            return f"{name} was made before {beside} asked for {text}; `uv lock` writes it again"
    return ""


def _requires(packages: list[Any]) -> dict[str, list[frozenset[str]]]:
    """Return what the projects of a uv.lock asked for when it was written: the clauses of each specifier, by name."""
    known: dict[str, list[frozenset[str]]] = {}
    for one in packages:
        metadata = one.get("metadata", {})
        for entry in metadata.get("requires-dist", []) if isinstance(metadata, dict) else []:
            if isinstance(entry, dict):
                clauses = _clauses(str(entry.get("specifier", "")))
                known.setdefault(normal_name(str(entry.get("name"))), []).append(clauses)
    return known


def _dependencies(project: ProjectTable, needs: PythonNeeds) -> list[str]:
    more = [project.extras.get(normal_name(extra), []) for extra in needs.extras]
    return [*project.dependencies, *(one for texts in more for one in texts)]


def _clauses(specifier: str) -> frozenset[str]:
    return frozenset(re.sub(r"\s", "", specifier).lower().strip("()").split(",")) - {""}


def check_pipfile_lock(root: Path, name: str, locked: Iterable[str]) -> None:
    """Refuse a Pipfile.lock that lacks a package of the Pipfile beside it. Raises MANIFEST."""
    beside = name.removesuffix(".lock")
    if not is_there(root, beside):
        return
    packages = read_toml(root, beside).get("packages", {})
    wanted = [one for one, spec in packages.items() if isinstance(spec, str)] if isinstance(packages, dict) else []
    if lacking := _lacking(wanted, set(map(normal_name, locked))):
        raise manifest_error(
            name, 1, f"it does not have {lacking}, which {beside} names; `pipenv lock` writes it again"
        )


def stale_notice(root: Path, name: str, text: str, needs: PythonNeeds) -> str:
    """Return a notice if a lock lacks a package of the requirements.txt or pyproject.toml beside it.

    This is not an error, because a lock may be meant for less than what the other file names.
    """
    directory = name.rpartition("/")[0]
    for source in SOURCES:
        beside = f"{directory}/{source}" if directory else source
        if beside != name and is_there(root, beside):
            lacking = _lacking(_wanted(root, beside, needs), _locked(text))
            return f"{name} does not have {lacking}, which {beside} names; write {name} again" if lacking else ""
    return ""


def _wanted(root: Path, name: str, needs: PythonNeeds) -> list[str]:
    if name.endswith(".txt"):
        files = included_files(root, name, constraints=False)
        return [words for text in files.values() if not has_hashes(text) for _, words in requirement_lines(text)]
    return _dependencies(read_pyproject(root, name).project, needs)


def _locked(text: str) -> set[str]:
    named = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", text, re.MULTILINE)
    in_toml = re.findall(r"""^name\s*=\s*["']([^"']+)""", text, re.MULTILINE)
    return set(map(normal_name, in_toml or named))


def _lacking(wanted: Iterable[str], locked: set[str]) -> str:
    """Return the names that are not locked, joined. Those with a marker are left out, because it may be false here."""
    found = [match[1] for match in map(NAME.match, wanted) if match and not match[3]]
    return ", ".join(name for name in found if normal_name(name) not in locked)
