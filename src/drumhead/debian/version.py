"""Sort Debian's version numbers (deb-version(7)).

The library python-debian could do this too, but importing it takes 22 ms instead of 9 ms, to save 20 lines.
"""

from __future__ import annotations

import re

Key = tuple[int, tuple[tuple[tuple[int, ...], int], ...], tuple[tuple[tuple[int, ...], int], ...]]


def version_key(version: str) -> Key:
    """Return a key that sorts ``[epoch:]upstream[-revision]`` as dpkg does. Any text has one.

    A number of more than 999 digits is sorted as several.
    """
    epoch, _, rest = version.partition(":")
    if not re.fullmatch(r"[0-9]{1,999}", epoch) or ":" not in version:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch), _part_key(upstream), _part_key(revision)


def _part_key(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return the alternating runs of non-digits and digits. ``~`` sorts before the end, then letters, then the rest."""
    runs = re.findall(r"(\D*)(\d{0,999})", part)
    return tuple(((*map(_character_key, letters), 0), int(digits or 0)) for letters, digits in runs)


def _character_key(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256
