"""Name this program as whoever reads its output can start it."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command_name() -> str:
    """Return ``safelight``, or the path by which it was called if a shell would not find it by its name."""
    called = Path(sys.argv[0])
    if shutil.which("safelight") or called.name != "safelight":
        return "safelight"
    path = str(called.resolve())
    return shlex.quote(min(os.path.relpath(path), path, key=len))
