"""Read SQL files of a backend: named statements (`queries/`) and numbered migrations."""

from __future__ import annotations

import functools
import re
from importlib import resources


@functools.cache
def queries(package: str) -> dict[str, str]:
    """Return the statements in `queries/` of a package; each follows a line `-- name: NAME`."""
    statements: dict[str, str] = {}
    for text in _read(package, "queries"):
        parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
        statements.update(zip(parts[1::2], (part.strip().rstrip(";") for part in parts[2::2]), strict=True))
    return statements


def migrations(package: str) -> list[str]:
    """Return the scripts in `migrations/` of a package; the Nth upgrades the schema from version N-1 to version N."""
    return _read(package, "migrations")


def _read(package: str, folder: str) -> list[str]:
    scripts = sorted(resources.files(package).joinpath(folder).iterdir(), key=lambda script: script.name)
    return [script.read_text(encoding="utf-8") for script in scripts if script.name.endswith(".sql")]
