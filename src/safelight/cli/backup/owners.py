"""Give what root restores to the users of the services, which could not read it otherwise."""

from __future__ import annotations

import os
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
    """Give everything in each directory to the owner of that directory, if this is root."""
    for directory in directories if os.geteuid() == 0 else ():
        owner = directory.stat()
        for _, within, files, descriptor in os.fwalk(directory):  # follows no link that the owner may make meanwhile
            for name in (*within, *files):
                os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)
