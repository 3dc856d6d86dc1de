"""The base tree of an OSv guest: mount points, name resolution, the start program and the preload library."""

from __future__ import annotations

from pathlib import Path

from drumhead.debian.accounts import Accounts
from drumhead.guest.contract import GuestProgram
from drumhead.tree import USR_MERGED, Tree, directory, regular, symlink

CONFIG_MOUNT = "/drumhead"
"""The mount point of the disk with a machine's configuration."""
RAMFS = ("/tmp", "/run", "/var/tmp", "/var/log")  # noqa: S108 - the guest's
"""Writable directories, whose contents are lost when the machine ends. The plan adds ``/data`` if no volume is mounted
there.
"""
FSTAB = "".join(
    f"{kind} {path} {kind} defaults 0 0\n"
    for path, kind in {"/dev": "devfs", "/proc": "procfs", "/sys": "sysfs", **dict.fromkeys(RAMFS, "ramfs")}.items()
)
FILES = {
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "etc/host.conf": "multi on\n",
    "etc/fstab": FSTAB,
}
LINKS = {
    "etc/mnttab": "/proc/mounts",
    # The root is read-only. The start program writes these files; for other programs they are on the configuration
    # disk.
    "etc/hosts": "/run/drumhead/hosts",
    "etc/resolv.conf": "/run/drumhead/resolv.conf",
    "var/run": "/run",
}
MOUNT_POINTS = ("dev", "proc", "sys", "data", "mnt", "drumhead")
START_PACKAGE = "drumhead_start"
START_PLACE = f"usr/lib/python3/dist-packages/{START_PACKAGE}"
"""A directory on the module search path of any version of Debian's Python, even in isolated mode (-I)."""
START_SOURCES = Path(__file__).parent / "start"
PRELOAD = "/usr/lib/drumhead/files.so"
PRELOAD_PROGRAM = GuestProgram(
    sources=Path(__file__).parent / "preload",
    shipped=Path(__file__).parent / "files.so",
    compiler=(
        *("musl-gcc", "-std=gnu11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-nostdlib", "-Os", "-s"),
        *("-Wall", "-Wextra"),
    ),
)


def skeleton(preload: bytes) -> Tree:
    """Return a new tree, to which the composer adds the application. `preload` is the compiled preload library."""
    tree = Tree()
    for name in USR_MERGED:
        tree.add(f"usr/{name}", directory())
        tree.add(name, symlink(f"usr/{name}"))
    for path in (*MOUNT_POINTS, *(place.lstrip("/") for place in RAMFS), "home"):
        tree.add(path, directory())
    for path, text in (FILES | Accounts().files()).items():
        tree.add(path, regular(text.encode()))
    for path, target in LINKS.items():
        tree.add(path, symlink(target))
    for source in sorted(START_SOURCES.glob("*.py")):
        tree.add(f"{START_PLACE}/{source.name}", regular(source.read_bytes()))
    tree.add(PRELOAD.lstrip("/"), regular(preload, 0o755))
    return tree
