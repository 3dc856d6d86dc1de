""".capstanignore and .drumheadignore: which files of a project stay out of its image.

The rules are those of Capstan's documentation (Capstanignore): patterns begin with a slash, ``**`` crosses
directories, a directory takes what is below it along, there is no negation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.errors import manifest_error
from drumhead.patterns import match_any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = (".drumheadignore", ".capstanignore")
ALWAYS = ("/meta", "/mpm-pkg", "/.git", "/.capstanignore", "/.drumheadignore")
"""What never reaches an image: Capstan's own three, and the ignore files themselves."""
CLUTTER = ("/.venv", "/.hg", "/.svn", "/**/__pycache__", "/**/*.pyc", "/.mypy_cache", "/.pytest_cache", "/.ruff_cache")
"""Made by tools on the host and useless in a guest (bytecode is made anew for the guest's Python)."""


def read_ignore(root: Path) -> tuple[Callable[[str], bool], tuple[str, ...]]:
    """Return a test for paths of the project in `root` (relative), and the patterns that it knows. Raises MANIFEST."""
    patterns = [*ALWAYS, *CLUTTER]
    for name in FILES:
        file = root / name
        if file.is_file():
            patterns += _read(file.read_text(errors="replace"), name)
    return match_any(patterns), tuple(patterns)


def _read(text: str, name: str) -> list[str]:
    patterns = []
    for number, line in enumerate(text.splitlines(), 1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        if pattern.startswith("!"):
            raise manifest_error(name, number, "there is no negation (!) in ignore files")
        if not pattern.startswith("/"):
            raise manifest_error(
                name, number, f"a pattern starts with a slash: /{pattern} in the root, /**/{pattern} in every directory"
            )
        patterns.append(pattern)
    return patterns
