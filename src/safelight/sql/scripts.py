"""Read SQL files of a backend: named statements (`queries.sql`) and numbered migrations."""

from __future__ import annotations

import functools
import re
from importlib import resources


@functools.cache
def queries(package: str) -> dict[str, str]:
    """Return the statements in `queries.sql` of a package; each follows a line `-- name: NAME`."""
    text = resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip().rstrip(";") for part in parts[2::2]), strict=True))


def migrations(package: str) -> list[str]:
    """Return the scripts in `migrations/` of a package; the Nth upgrades the schema from version N-1 to version N."""
    scripts = sorted(resources.files(package).joinpath("migrations").iterdir(), key=lambda script: script.name)
    return [script.read_text(encoding="utf-8") for script in scripts if script.name.endswith(".sql")]
