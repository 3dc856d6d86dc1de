"""The kernel and initrd of an image, built once from a kernel package and a guest's program."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import Blobs, replacing
from drumhead.image.guest_program import compile_program
from drumhead.records import Kernel, read_cached

if TYPE_CHECKING:
    from drumhead.guest.contract import Guest
    from drumhead.home import Home
    from drumhead.package.records import Package
    from drumhead.package.store import PackageStore


def build_kernel(home: Home, store: PackageStore, guest: Guest, package: Package) -> Kernel:
    """Return the kernel and initrd of an image, from the cache unless the package or the guest has changed.

    This blocks the calling thread.
    """
    blobs = Blobs(home)
    key = hashlib.sha256(f"{package.archive}\0{guest_digest(guest.name)}".encode()).hexdigest()
    file = home.cache / "kernels" / f"{key}.json"
    known = read_cached(file, Kernel)
    if known and all(blobs.path(blob.digest).is_file() for blob in (known.vmlinux, known.initrd) if blob):
        os.utime(file)
        return known
    tree = store.tree(package)
    modules = {path: entry.read() for path, entry in tree if path.startswith("modules/") and entry.kind == "file"}
    initrd = guest.initrd(modules, compile_program(guest.program, home.cache))
    kernel = Kernel(
        package=package.name,
        version=package.version,
        vmlinux=blobs.put(tree["vmlinux.xz"].read()),
        initrd=blobs.put(initrd) if initrd else None,
    )
    with replacing(file) as temporary:
        temporary.write_bytes(msgspec.json.encode(kernel))
    return kernel


def guest_digest(name: str) -> str:
    """Return the SHA-256 over the files of a guest's Python package, which determine its program."""
    state = hashlib.sha256()
    root = Path(str(resources.files("drumhead.guest") / name))
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            state.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return state.hexdigest()
