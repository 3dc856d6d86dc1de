"""Notices for the user about a Python project that is being composed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.manifest.ignore import read_ignore
from drumhead.manifest.project_files import is_there, read_text
from drumhead.python.lock import FILES
from drumhead.python.pyproject import ProjectTable, PyProject, read_pyproject
from drumhead.python.requirements import PYTHON

if TYPE_CHECKING:
    from drumhead.manifest.records import Project

PYPROJECT = "pyproject.toml"
UNREAD = {
    "pdm.lock": "pdm export --format requirements --prod --output requirements.lock",
    "setup.py": "uv pip compile setup.py --output-file requirements.txt",
    "setup.cfg": "uv pip compile setup.cfg --output-file requirements.txt",
    "requirements.in": "uv pip compile requirements.in --output-file requirements.txt",
    "environment.yml": "pip list --format=freeze >requirements.txt",
    "environment.yaml": "pip list --format=freeze >requirements.txt",
}
"""Other files with dependencies, each with a command that writes a file that drumhead reads."""
NAMED = ("pylock.*.toml", "*requirements*.txt", "requirements/*.txt")
"""Files of requirements that are read only if package.yaml names them."""
MAX_NAMED = 3
WITH_INDEXES = (
    "requirements.txt",
    "requirements.lock",
    "pyproject.toml",
    "uv.toml",
    "uv.lock",
    "Pipfile",
    "Pipfile.lock",
)
PASSWORD = re.compile(r"://[^/\s@:\"'$]*:[^/\s@\"'$]+@")
"""A URL with a password. One that is written as a variable has a ``$``."""


def python_notices(project: Project) -> list[str]:
    """Return notices for dependencies in files that are not read, for another Python version, and for passwords that
    go into the image. Raises MANIFEST.
    """
    root = Path(project.root)
    return [notice for notice in (_unread(project), _other_python(root), _passwords(project)) if notice]


def _passwords(project: Project) -> str:
    """Return a notice if files of the image have the password of an index, else an empty string."""
    root, (ignored, _) = Path(project.root), read_ignore(Path(project.root))
    names = dict.fromkeys(filter(None, (project.package.python.lock, *WITH_INDEXES)))
    found = [name for name in names if is_there(root, name) and not ignored(name)]
    named = ", ".join(name for name in found if PASSWORD.search(read_text(root, name)))
    return f"{named} goes into the image with a URL's password; give it in a variable instead" if named else ""


def _unread(project: Project) -> str:
    """Return a notice if a project's dependencies are only in files that are not read, else an empty string."""
    root = Path(project.root)
    if project.package.python.lock or any(is_there(root, name) for name in FILES if name != PYPROJECT):
        return ""
    document = read_pyproject(root, PYPROJECT) if is_there(root, PYPROJECT) else PyProject()
    if document.tool.uv.workspace and not document.project.name:
        return f"{PYPROJECT} is a workspace of uv without uv.lock, so no dependencies are installed; run `uv lock`"
    known = [name for name in UNREAD if is_there(root, name)]
    if (document.project != ProjectTable() or document.tool.poetry.name) and known[:1] != ["pdm.lock"]:
        return ""  # a setup.py beside it is no more than a shim
    found = sorted({path.relative_to(root).as_posix() for pattern in NAMED for path in root.glob(pattern)})
    if found and not known:
        names = ", ".join(found[:MAX_NAMED])
        return f"no dependencies are installed; name their file in meta/package.yaml, as python: {{lock: …}} ({names})"
    return f"{known[0]} is not read for dependencies; `{UNREAD[known[0]]}` writes a file that is" if known else ""


def _other_python(root: Path) -> str:
    """Return a notice if pyproject.toml asks for another Python version than that of the image, else an empty
    string.
    """
    if not is_there(root, PYPROJECT):
        return ""
    document = read_pyproject(root, PYPROJECT)
    asked = document.project.requires_python or document.tool.poetry.dependencies.get("python", "")
    if not isinstance(asked, str) or not asked:
        return ""
    from semantic_version import SimpleSpec, Version  # noqa: PLC0415 - only projects that say it need it

    try:
        fits = SimpleSpec(asked.replace(" ", "")).match(Version(f"{PYTHON}.2"))
    except ValueError:
        return ""  # a specifier that this library cannot parse
    return "" if fits else f"{PYPROJECT} asks for Python {asked}, and the image gets {PYTHON}"
