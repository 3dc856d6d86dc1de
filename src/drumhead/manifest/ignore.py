"""Read .capstanignore and .drumheadignore, which list the files that stay out of an image.

The rules are those of Capstan's documentation (Capstanignore): patterns start with a slash, ``**`` crosses
directories, a directory includes everything below it, and there is no negation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.errors import manifest_error
from drumhead.manifest.project_files import is_there, read_text
from drumhead.patterns import match_any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = (".drumheadignore", ".capstanignore")
ALWAYS = ("/meta", "/mpm-pkg", "/volumes", "/.git", "/.gitignore", "/.capstanignore", "/.drumheadignore")
"""Paths that are always ignored: those of Capstan, version control and the ignore files."""
CLUTTER = ("/.venv", "/.hg", "/.svn", "/**/__pycache__", "/**/*.pyc", "/.mypy_cache", "/.pytest_cache", "/.ruff_cache")
"""Files of tools on the host, which are useless in a guest. (Bytecode is compiled by the guest's Python.)"""
CREDENTIALS = ("/**/.npmrc",)
"""Files with passwords for what is installed when a project is composed. Nothing in a machine reads them."""


def read_ignore(root: Path) -> tuple[Callable[[str], bool], tuple[str, ...]]:
    """Return a function that tells whether a relative path of the project is ignored, and the patterns. Raises
    MANIFEST.
    """
    patterns = [*ALWAYS, *CLUTTER, *CREDENTIALS]
    for name in FILES:
        if is_there(root, name):
            patterns += _read(read_text(root, name), name)
    return match_any(patterns), tuple(patterns)


def _read(text: str, name: str) -> list[str]:
    patterns = []
    for number, line in enumerate(text.splitlines(), 1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        if pattern.startswith("!"):
            raise manifest_error(name, number, "ignore files have no negation (!)")
        if not pattern.startswith("/"):
            raise manifest_error(
                name,
                number,
                f"a pattern must start with a slash: /{pattern} in the root, /**/{pattern} in every directory",
            )
        patterns.append(pattern)
    return patterns
