"""The base tree of a Linux guest: mount points, accounts and name resolution."""

from __future__ import annotations

from drumhead.debian.accounts import Accounts
from drumhead.tree import USR_MERGED, Tree, directory, regular, symlink

FILES = {
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    # Names of machines have IPv4 and IPv6 addresses. Many programs try only the first, and most listen on IPv4.
    "etc/gai.conf": "precedence ::ffff:0:0/96 100\n",
    "etc/host.conf": "multi on\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/resolv.conf": "",
    "etc/hostname": "drumhead\n",
}
MOUNT_POINTS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": 0o1777, "root": 0o700, "mnt": 0o755}


def skeleton() -> Tree:
    """Return a new tree, to which the composer adds the application."""
    tree = Tree()
    for path, mode in MOUNT_POINTS.items():
        tree.add(path, directory(mode))
    for name in USR_MERGED:
        tree.add(f"usr/{name}", directory())
        tree.add(name, symlink(f"usr/{name}"))
    for path in ("var/tmp", "var/log", "var/lib", "etc", "home"):
        tree.add(path, directory(0o1777 if path == "var/tmp" else 0o755))
    tree.add("var/run", symlink("/run"))
    for path, text in (FILES | Accounts().files()).items():
        tree.add(path, regular(text.encode()))
    return tree
