"""Read and change ext4 disks on the host, and mount small ones that are soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_whole(disk):
    return subprocess.run(["e2fsck", "-f", "-n", disk], capture_output=True, check=False).returncode == 0


def debugfs(disk, *orders):
    """Run debugfs commands on a disk."""
    words = ["debugfs", "-w", "-f", "/dev/stdin", disk]
    subprocess.run(words, input="\n".join(orders), capture_output=True, text=True, check=True)


def sparse(path, blocks, at, size=4096):
    """Make a file with data in the blocks `at`, and holes elsewhere."""
    with path.open("wb") as file:
        for block in at:
            file.seek(block * size)
            file.write(bytes([block % 251 + 1]) * size)
        file.truncate(blocks * size)
    return path


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a file system of a size, for example 8m, at a new directory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def may_mount(directory: Path) -> bool:
    """Return whether small disks can be mounted here."""
    try:
        with small_disk(directory / "probe", "1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
