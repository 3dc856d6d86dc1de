"""Find out what the file system of a blob store can do, and whether its disk works."""

from __future__ import annotations

import errno
from pathlib import Path

from safelight.storage.files import Incoming, drop_cached, read_plainly


def can_rename(source: Path, target: Path) -> bool:
    """Return whether files in one directory can be moved to the other by a rename. Raises OSError."""
    probe = Incoming(source)
    try:
        probe.path.touch()
        probe.path.rename(target / probe.path.name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    else:
        return True
    finally:
        for place in (source, target):
            (place / probe.path.name).unlink(missing_ok=True)


def reads_back(path: Path, data: bytes) -> bool:
    """Return whether the disk itself still has what was flushed to a file. Raises OSError."""
    with read_plainly(path) as file:
        drop_cached(file)
        return file.readall() == data
