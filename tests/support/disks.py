"""Small disks that are soon full, for tests that run as root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size, for example 8m, at a new directory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def may_mount(directory: Path) -> bool:
    """Tell whether small disks can be mounted here."""
    try:
        with small_disk(directory / "probe", "1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
