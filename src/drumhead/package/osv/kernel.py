"""Add OSv kernels that the user provides as files or URLs. drumhead ships none."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
import re
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead.elf import shorten
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.package.osv.identify import RELEASES, OsvFile, identify
from drumhead.package.osv.module import fit
from drumhead.package.records import Origin, Package, PackageRef
from drumhead.report import silent
from drumhead.tree import Tree, regular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drumhead.package.store import PackageStore
    from drumhead.report import Report

OSV = "osv"
"""The package of an OSv kernel: ``vmlinux.xz``, ``loader.img``, and files for the root tree below ``root/``."""
ROOT = "root"
EXT_MODULE = f"{ROOT}/usr/lib/fs/libext.so"
"""The kernel loads modules from /usr/lib/fs before it mounts anything except its root."""
MAX_FILE = 512 << 20
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
KERNEL, BOOT_IMAGE = "vmlinux.xz", "loader.img"


async def add_kernel(
    store: PackageStore, sources: Sequence[str], digests: Sequence[str] = (), report: Report = silent
) -> Package:
    """Store one version of OSv: its kernel and, if given, its boot image and its ext module.

    `sources` are paths and http(s) URLs. Each of `digests` (``sha256:HEX``) must be the digest of a source, and every
    URL
    needs one. Raises USAGE, NOT_FOUND, REMOTE, UNVERIFIED, UNSUPPORTED, INCOMPLETE, without storing anything.
    """
    from drumhead.download import fetch_bytes, new_client  # noqa: PLC0415 - composing needs the rest, not the network

    wanted = _parse_digests(digests)
    files: dict[str, bytes] = {}
    async with new_client() as client:
        for number, source in enumerate(sources):
            report(f"reading {source.rsplit('/', 1)[-1]}", number, len(sources))
            if re.match("https?://", source):
                files[source] = await fetch_bytes(client, source, limit=MAX_FILE)
            else:
                files[source] = await asyncio.to_thread(_read, Path(source))
    _verify(files, wanted)
    report("packing the kernel", len(sources), len(sources) + 1)
    return await asyncio.to_thread(_keep, store, files)


def find_osv(store: PackageStore, version: str = "") -> Package:
    """Return the requested version of OSv's kernel, or else the newest. Raises NOT_FOUND with instructions."""
    try:
        return store.find(PackageRef(name=OSV, version=version))
    except DrumheadError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        have = ", ".join(package.version for package in store.list() if package.name == OSV)
        lacking = (
            f"there is no kernel osv@{version}; there is: {have}" if have else "there is no kernel of OSv in the store"
        )
        raise DrumheadError(
            ErrorCode.NOT_FOUND,
            f"{lacking}. drumhead ships none; download loader-stripped.elf (and loader.img for exported "
            f"disks, libext.so for volumes) of a release from {RELEASES} and give them to `drumhead kernel add FILE…`",
        ) from error


def root_files(kernel: Tree) -> Tree:
    """Return the files that a kernel package puts below all other layers (OSv's modules); may be empty."""
    tree = Tree()
    for path, entry in kernel:
        if path.startswith(f"{ROOT}/"):
            tree.add(path.removeprefix(f"{ROOT}/"), entry)
    return tree


def _parse_digests(digests: Sequence[str]) -> set[str]:
    found = set()
    for digest in digests:
        match = DIGEST.fullmatch(digest.lower())
        if match is None:
            raise DrumheadError(ErrorCode.USAGE, f"--digest {digest!r} must be sha256: and 64 hexadecimal digits")
        found.add(match[1])
    return found


def _read(path: Path) -> bytes:
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.iterdir() if file.is_file())[:10])
        raise DrumheadError(ErrorCode.USAGE, f"{path} is a directory; give the files in it ({inside or 'it has none'})")
    try:
        if path.stat().st_size > MAX_FILE:
            raise DrumheadError(ErrorCode.UNSUPPORTED, f"{path} is larger than any kernel ({MAX_FILE >> 20} MiB)")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DrumheadError(ErrorCode.NOT_FOUND, f"{path} does not exist") from error
    except OSError as error:
        raise DrumheadError(ErrorCode.USAGE, f"{path} cannot be read: {error.strerror}") from error


def _verify(files: dict[str, bytes], wanted: set[str]) -> None:
    digests = {source: hashlib.sha256(contents).hexdigest() for source, contents in files.items()}
    for source, digest in digests.items():
        if digest not in wanted and "://" in source:
            reason = (
                "and no --digest gives that; nothing is kept"
                if wanted
                else "but a URL needs --digest; compare this digest with the published one, and give it"
            )
            raise DrumheadError(
                ErrorCode.UNVERIFIED if wanted else ErrorCode.USAGE,
                f"{source} has the digest sha256:{digest}, {reason}",
            )
    for digest in sorted(wanted - set(digests.values())):
        have = ", ".join(f"{source} sha256:{digest}" for source, digest in digests.items())
        raise DrumheadError(ErrorCode.UNVERIFIED, f"no file has the digest sha256:{digest}; the digests are {have}")


def _keep(store: PackageStore, files: dict[str, bytes]) -> Package:
    from drumhead.package.kernel import XZ_FILTERS  # noqa: PLC0415

    found = {source: identify(contents, source) for source, contents in files.items()}
    kernel = _the_one(found, "kernel")
    if kernel is None:
        raise DrumheadError(
            ErrorCode.INCOMPLETE, "none of the files is a kernel; add loader-stripped.elf together with its other files"
        )
    tree, origins = Tree(), []

    def place(path: str, source: str, contents: bytes) -> None:
        tree.add(path, regular(contents))
        digest = hashlib.sha256(files[source]).hexdigest()
        origins.append(Origin(name=path, version=found[kernel].version, sha256=digest))

    elf = shorten(files[kernel])
    place(KERNEL, kernel, lzma.compress(elf, format=lzma.FORMAT_XZ, filters=XZ_FILTERS))
    if boot := _the_one(found, "boot image"):
        place(BOOT_IMAGE, boot, files[boot])
    for path, source in _modules(found).items():
        place(path, source, fit(files[source]))
    return store.add(
        tree,
        Package(
            name=OSV,
            version=found[kernel].version,
            kind="kernel",
            description="OSv, provided by the user",
            created="",
            archive="0" * 64,
            archive_size=0,
            unpacked_size=0,
            origins=tuple(origins),
        ),
    )


def _the_one(found: dict[str, OsvFile], kind: str) -> str | None:
    sources = [source for source, file in found.items() if file.kind == kind]
    if len(sources) > 1:
        raise DrumheadError(ErrorCode.USAGE, f"{' and '.join(sources)} are both a {kind}; add each version by itself")
    return sources[0] if sources else None


def _modules(found: dict[str, OsvFile]) -> dict[str, str]:
    """Return the paths of the ext module and the libraries that it needs. Raises INCOMPLETE, USAGE."""
    libraries = {
        file.name or source.rsplit("/", 1)[-1]: source for source, file in found.items() if file.kind == "library"
    }
    module = _the_one(found, "module")
    places = {EXT_MODULE: module} if module else {}
    for name in found[module].needs if module else ():
        if name not in libraries:
            raise DrumheadError(
                ErrorCode.INCOMPLETE, f"{module} needs {name}, which is not among the files; add it too"
            )
        places[f"{ROOT}/usr/lib/{name}"] = libraries.pop(name)
    if libraries:
        raise DrumheadError(
            ErrorCode.USAGE,
            f"{', '.join(libraries.values())}: a library that OSv's module for ext does not need; leave it out",
        )
    return places
