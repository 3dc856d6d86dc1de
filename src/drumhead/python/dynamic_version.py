"""Find the version of a project whose build backend reads it from one of the project's files. Nothing is run."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

from drumhead.manifest.project import is_inside
from drumhead.manifest.project_files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANY_NAME = "__version__|VERSION"
"""The variables in which Hatch looks for the version."""


def version_in_files(root: Path, directory: str, table: dict[str, Any]) -> str:
    """Return the version that the files of a project give, or an empty string.

    `table` is the pyproject.toml in `directory`, relative to `root`. A version that comes from elsewhere, such as a
    version control system, is not known. Raises MANIFEST for a file that cannot be read.
    """
    for place, variable in (*_of_hatch_or_pdm(table), *_of_setuptools(table), *_of_flit(table)):
        path = posixpath.normpath(posixpath.join(directory, place))
        if not is_inside(root, path) or not (root / path).is_file():
            continue
        text = read_text(root, path)
        if not variable:
            return text.strip()
        pattern = rf"""^(?:{variable})[ \t]*(?::[^=\n]*)?=[ \t]*["']([^"'\n]+)["']"""
        if found := re.search(pattern, text, re.MULTILINE):
            return found[1].strip()
    return ""


def _at(table: object, *keys: str) -> Any:
    """Return the value at a path of keys, or None."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _of_hatch_or_pdm(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for tool in ("hatch", "pdm"):
        if isinstance(path := _at(table, "tool", tool, "version", "path"), str):
            yield path, ANY_NAME


def _of_setuptools(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    described = _at(table, "tool", "setuptools", "dynamic", "version")
    files, attribute = _at(described, "file"), _at(described, "attr")
    for path in files if isinstance(files, list) else [files]:
        if isinstance(path, str):
            yield path, ""
    if isinstance(attribute, str):
        module, _, variable = attribute.rpartition(".")
        yield from _modules(module, re.escape(variable))


def _of_flit(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    backend, name = _at(table, "build-system", "build-backend"), _at(table, "project", "name")
    if isinstance(backend, str) and backend.startswith("flit") and isinstance(name, str):
        module = _at(table, "tool", "flit", "module", "name") or name.replace("-", "_")
        yield from _modules(str(module), "__version__")


def _modules(module: str, variable: str) -> Iterator[tuple[str, str]]:
    """Yield the files that may be a module, in the directory of a project or in its ``src``."""
    path = module.replace(".", "/")
    for place in (path, f"src/{path}"):
        yield f"{place}/__init__.py", variable
        yield f"{place}.py", variable
