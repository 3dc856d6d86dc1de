"""Find out whether a project uses time zones, whose rules no guest has by itself, and whether a zone exists."""

from __future__ import annotations

import difflib
import os
import posixpath
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.closure import follow
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.manifest.ignore import read_ignore
from drumhead.python.distribution import SITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from drumhead.closure import Index
    from drumhead.manifest.records import Project
    from drumhead.records import Command
    from drumhead.tree import Tree

PACKAGE = "tzdata"
NO_ZONE = ("", "UTC", "UTC0", "GMT", "GMT0")
"""Values of TZ that need no time zone rules."""
MARKS = (b"zoneinfo", b"TIME_ZONE")
"""Words in Python sources that look zones up. The second is Django's setting."""
ZONE_CLASS = b"ZoneInfo"
"""The class of the standard library that looks a zone up: a name in the source or bytecode of every module with it."""
LARGEST_SOURCE = 1 << 20
PLACE = "usr/share/zoneinfo"
WITH_OWN_ZONES = ("node", "java")
"""Programs that bring the rules of time zones themselves."""
_ABBREVIATION = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)"
_OFFSET = r"[+-]?[0-9]{1,3}(?::[0-9]{2}){0,2}"
RULES = re.compile(rf"{_ABBREVIATION}{_OFFSET}(?:{_ABBREVIATION}(?:{_OFFSET})?(?:,[A-Za-z0-9./:+-]+){{0,2}})?")
"""A TZ that holds the rules itself, as POSIX defines it: CET-1CEST,M3.5.0,M10.5.0/3."""


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
    top = root / part
    is_file = top.is_file() and not top.is_symlink()
    for place, directories, names in [(str(top.parent), [], [top.name])] if is_file else os.walk(top):
        inside = os.path.relpath(place, root)
        for found in (directories, names):
            found[:] = [name for name in found if not ignored(os.path.normpath(f"{inside}/{name}"))]
        directories[:] = [name for name in directories if name != "node_modules"]
        for name in names:
            path = Path(place, name)
            with suppress(OSError):  # ``layers.scan`` says which file cannot be read
                facts = path.lstat()  # the target of a link is found by itself, or is not a file of the project
                if name.endswith(".py") and stat.S_ISREG(facts.st_mode) and facts.st_size <= LARGEST_SOURCE:
                    yield path.read_bytes()


def zone_users(tree: Tree) -> tuple[str, ...]:
    """Return the names of the installed packages in a tree that look zones up (kombu does so when it is imported)."""
    modules = (
        (path.removeprefix(f"{SITE}/").partition("/")[0].partition(".")[0], entry)
        for path, entry in tree
        if path.startswith(f"{SITE}/") and path.endswith((".py", ".pyc")) and entry.kind == "file"
    )
    return tuple(sorted({name for name, entry in modules if ZONE_CLASS in entry.read()}))


def has_zones(index: Index) -> bool:
    """Return whether an image has time zones: those of Debian or of the package tzdata of PyPI."""
    return f"{PLACE}/UTC" in index or f"{SITE}/{PACKAGE}/zoneinfo/UTC" in index


def check_zones(index: Index, commands: Mapping[str, Command]) -> None:
    """Check that the TZ of each config set is a zone; libc takes any other for UTC. Raises INCOMPLETE."""
    for name, command in commands.items():
        if fault := zone_fault(index, command):
            raise DrumheadError(ErrorCode.INCOMPLETE, f"config set {name}: {fault}")


def zone_fault(index: Index, command: Command) -> str:
    """Return why the TZ of a command is no time zone; empty where it is one, or where programs look elsewhere."""
    zone = command.env.get("TZ", "").removeprefix(":")
    if zone in NO_ZONE or "TZDIR" in command.env or RULES.fullmatch(zone):
        return ""
    found = index.get(follow(index, zone if zone.startswith("/") else f"/{PLACE}/{zone}"))
    if found and found.kind == "file":
        return ""
    zones = {path.removeprefix(f"{PLACE}/") for path in index if path.startswith(f"{PLACE}/")}
    if not zones and posixpath.basename(command.argv[0]) in WITH_OWN_ZONES:
        return ""
    if not zones:
        return f"TZ is {zone}, and the image has no time zones; compose it with --require {PACKAGE}"
    by_lower = {one.lower(): one for one in zones}
    near = difflib.get_close_matches(zone.lower(), by_lower, n=1)
    return f"TZ is {zone}, which is not a time zone{f'; did you mean {by_lower[near[0]]}?' if near else ''}"
