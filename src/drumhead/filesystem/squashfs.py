"""Write trees as squashfs with zstd, the default format: the smallest that Debian's kernel reads at full speed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.filesystem.tar import write_tar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drumhead.tree import Tree

SMALL_TREE = 4 << 20
SMALL_BLOCK, BLOCK = "32K", "128K"
"""The kernel buffers four blocks of every mounted layer, and a page fault unpacks a whole block. Five layers with 256K
blocks took 5 MB of a machine with 96 MB and made its services swap. For a Python tree, 256K saves 3 % and 1M 7 %.
"""

CROWD = 10_000
"""From this number of files of one size on, no file is stored once for all that equal it: mksquashfs compares each with
every other one of its size, which took 233 s for 100,000 files.
"""

LISTED = re.compile(r"[-dl]([-rwxsStT]{9}) (\d+)/(\d+) +\d+ \S+ \S+ /+(.+)")
"""A line of ``unsquashfs -lln``: mode, owner, size, date, time, path."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """The permission bits and the owner of a file."""

    mode: int
    uid: int = 0
    gid: int = 0


def write_squashfs(tree: Tree, path: Path, *, level: int, written: Callable[[int], None] | None = None) -> None:
    """Write `tree` to `path` with zstd at `level` (1 to 22). Equal trees and equal mksquashfs give equal bytes."""
    block = SMALL_BLOCK if tree.size < SMALL_TREE else BLOCK
    sizes = Counter(entry.size for _, entry in tree if entry.size)
    crowded = max(sizes.values(), default=0) >= CROWD
    host.run(
        [
            *("mksquashfs", "-", path, "-tar", "-noappend", "-quiet", "-no-progress", "-exit-on-error"),
            *("-comp", "zstd", "-b", block, "-Xcompression-level", str(level)),
            *("-root-uid", "0", "-root-gid", "0", "-root-mode", "755", "-no-xattrs", "-no-exports"),
            *("-all-time", "0", "-mkfs-time", "0"),
            *(["-no-duplicates"] if crowded else []),
        ],
        feed=lambda pipe: write_tar(tree, pipe, written),
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def squashfs_attributes(path: Path) -> dict[str, Attributes]:
    """Return the attributes of every file, directory and link, by path. Raises HOST_TOOL.

    Unpacking a file system without being root loses the owners, and the bits setuid and setgid.
    """
    listed = host.run(["unsquashfs", "-lln", "-dest", "/", path]).decode(errors="surrogateescape")
    found = {}
    for line in listed.splitlines():
        if match := LISTED.fullmatch(line):
            name = match[4].partition(" -> ")[0] if line.startswith("l") else match[4]
            found[name] = Attributes(_mode(match[1]), int(match[2]), int(match[3]))
    return found


def _mode(letters: str) -> int:
    """Return the permission bits that ``ls -l`` would show as `letters`."""
    bits = sum(0o400 >> place for place, letter in enumerate(letters) if letter not in "-ST")
    special = zip((0o4000, 0o2000, 0o1000), letters[2::3], strict=True)
    return bits | sum(bit for bit, letter in special if letter in "sStT")
