"""What machines mount instead of a compressed layer: the same tree without compression, in the cache.

It is written when a layer is made, because the tree is available then. A layer that came from elsewhere, or whose
copy is gone, is mounted as it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.blobs import replacing
from drumhead.filesystem.plain_erofs import write_plain_erofs

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.home import Home
    from drumhead.tree import Tree

VERSION = 1
"""Increased when the same tree should give other bytes: a snapshot must find the bytes again that it has seen."""


def mounted_path(home: Home, digest: str) -> Path:
    """Return the path of what is mounted for the layer `digest`, whether it exists or not."""
    return home.cache / "mounted" / f"{digest}-{VERSION}.erofs"


def write_mounted(home: Home, digest: str, tree: Tree) -> None:
    """Write what is mounted for the layer `digest`, which was made from `tree`. Blocks."""
    path = mounted_path(home, digest)
    if not path.is_file():
        with replacing(path) as temporary:
            write_plain_erofs(tree, temporary)


def sweep_mounted(home: Home, keep: set[str]) -> int:
    """Remove what is mounted for layers that are not in `keep`. Return the bytes freed."""
    freed = 0
    for path in (home.cache / "mounted").glob("*.erofs"):
        if path.name.partition("-")[0] not in keep or path != mounted_path(home, path.name.partition("-")[0]):
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
    return freed
