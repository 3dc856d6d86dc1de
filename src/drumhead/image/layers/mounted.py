"""Keep uncompressed copies of layers in the cache, which machines mount instead of the compressed layers.

A copy is written when its layer is made, because the tree is available then. A layer that came from elsewhere, or whose
copy was deleted, is mounted as it is stored.
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
"""Increase this if the same tree gives other bytes, because a snapshot must find the bytes that it was taken with."""


def mounted_path(home: Home, digest: str) -> Path:
    """Return the path of the copy of the layer `digest`, which need not exist."""
    return home.cache / "mounted" / f"{digest}-{VERSION}.erofs"


def write_mounted(home: Home, digest: str, tree: Tree) -> None:
    """Write the copy of the layer `digest`, which was made from `tree`. This blocks the calling thread."""
    path = mounted_path(home, digest)
    if not path.is_file():
        with replacing(path) as temporary:
            write_plain_erofs(tree, temporary)


def sweep_mounted(home: Home, keep: set[str]) -> int:
    """Remove the copies of layers that are not in `keep`. Return the number of bytes freed."""
    freed = 0
    for path in (home.cache / "mounted").glob("*.erofs"):
        if path.name.partition("-")[0] not in keep or path != mounted_path(home, path.name.partition("-")[0]):
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
    return freed
