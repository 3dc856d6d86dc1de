"""Give what root restores or copies to the users of the services, which could not read it otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make(directory: Path) -> None:
    """Make a directory and those above it. What root makes belongs to the owner of the directory that it is in."""
    if directory.is_dir():
        return
    make(directory.parent)
    directory.mkdir(mode=0o700)
    if os.geteuid() == 0:
        owner = directory.parent.stat()
        os.chown(directory, owner.st_uid, owner.st_gid)


def give(*directories: Path) -> None:
    """Give everything in each directory to the owner of that directory, if this is root and the owner is not."""
    for directory in directories if os.geteuid() == 0 else ():
        owner = directory.stat()
        if owner.st_uid == 0:
            continue
        for _, within, files, descriptor in os.fwalk(directory):  # follows no link that the owner may make meanwhile
            for name in (*within, *files):
                os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)


@contextmanager
def giving(directory: Path) -> Iterator[None]:
    """Make a directory, and give everything in it to its owner when the context ends, however it ends."""
    make(directory)
    try:
        yield
    finally:
        give(directory)


def give_file(path: Path) -> None:
    """Give a new file to the owner of the directory that it is in, if this is root."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
