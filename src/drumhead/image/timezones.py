"""Find out whether a project uses time zones, whose rules no guest has by itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.manifest.ignore import read_ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from drumhead.manifest.records import Project
    from drumhead.records import Command

PACKAGE = "tzdata"
NO_ZONE = ("", "UTC", "UTC0", "GMT", "GMT0")
"""Values of TZ that need no time zone rules."""
MARKS = (b"zoneinfo", b"TIME_ZONE")
"""Words in Python sources that look zones up. The second is Django's setting."""
LARGEST_SOURCE = 1 << 20


def uses_time_zones(project: Project, commands: Mapping[str, Command]) -> bool:
    """Return whether a config set has a TZ or a Python source of the project looks zones up. This reads all sources."""
    if any(command.env.get("TZ", "") not in NO_ZONE for command in commands.values()):
        return True
    root = Path(project.root)
    ignored, _ = read_ignore(root)
    return any(
        mark in source
        for part in (project.package.files or {"/": "."}).values()
        for source in _sources(root, part, ignored)
        for mark in MARKS
    )


def _sources(root: Path, part: str, ignored: Callable[[str], bool]) -> Iterator[bytes]:
    """Yield the Python sources of a part of the project, in the same way as ``layers.scan`` finds files."""
    for place, directories, names in os.walk(root / part):
        inside = os.path.relpath(place, root)
        directories[:] = [
            name for name in directories if name != "node_modules" and not ignored(os.path.normpath(f"{inside}/{name}"))
        ]
        for name in names:
            path = Path(place, name)
            facts = path.lstat()  # the target of a link is found by itself, or is not a file of the project
            if name.endswith(".py") and stat.S_ISREG(facts.st_mode) and facts.st_size <= LARGEST_SOURCE:
                yield path.read_bytes()
