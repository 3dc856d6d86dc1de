"""ext4 disks, looked into and filled from the host."""

import subprocess


def is_whole(disk):
    return subprocess.run(["e2fsck", "-f", "-n", disk], capture_output=True, check=False).returncode == 0


def debugfs(disk, *orders):
    """Do these things to a disk."""
    words = ["debugfs", "-w", "-f", "/dev/stdin", disk]
    subprocess.run(words, input="\n".join(orders), capture_output=True, text=True, check=True)


def sparse(path, blocks, at, size=4096):
    """A file with something in the blocks `at`, and holes elsewhere."""
    with path.open("wb") as file:
        for block in at:
            file.seek(block * size)
            file.write(bytes([block % 251 + 1]) * size)
        file.truncate(blocks * size)
    return path
