"""The local package store: a record for each version, and the blobs that these records name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import zstandard

from drumhead.blobs import Blobs, replacing
from drumhead.debian.version import version_key
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.squashfs import write_squashfs
from drumhead.filesystem.tar import read_tar, write_tar
from drumhead.home import files_in
from drumhead.package.records import PACKAGE_NAME, Package, PackageRef, PackedLayer
from drumhead.records import read_record, version_fault
from drumhead.tree import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.home import Home
    from drumhead.tree import Tree

ZSTD_LEVEL = 9
"""Level 12 would save 0.6 % and take twice the time (3.1 instead of 1.5 s for the package of libraries)."""
LAYER_LEVEL = 17
"""Level 19 would save 0.5 % and take twice the time (10.5 instead of 5.4 s for Python)."""
LAYERED = {"runtime", "tool", "application"}
"""Kinds of packages that become a layer of an image unchanged."""


MAX_WINDOW = 128 << 20
"""The limit in bytes for zstd's memory when unpacking."""
MAX_ARCHIVE = 2 << 30
MAX_UNPACKED = 4 << 30
MAX_RATIO = 50
MAX_HEADERS = 512 << 20
"""The limit in bytes for the headers of a package's files, which have 512 to 1,536 bytes each."""
HEADER_RATIO = 500
"""The headers of files whose names count upwards compress to a few bytes each."""
SMALL = 64 << 20


def unpacked_limit(package: Package) -> int:
    """Return how many bytes the archive of a package may unpack to, headers included.

    A record may come from an untrusted source, so its unpacked size must be plausible for the size of the archive:
    no program compresses better than 50 to 1. Raises UNVERIFIED if it is larger.
    """
    most = _most(package.archive_size, MAX_RATIO, MAX_UNPACKED)
    if package.archive_size > MAX_ARCHIVE or package.unpacked_size > most:
        raise DrumheadError(
            ErrorCode.UNVERIFIED,
            f"package {package.name} has {package.archive_size} bytes and claims to unpack to {package.unpacked_size}, "
            f"more than the limit of {most}",
        )
    return package.unpacked_size * 5 // 4 + _most(package.archive_size, HEADER_RATIO, MAX_HEADERS)


def _most(archive_size: int, ratio: int, limit: int) -> int:
    return min(limit, max(SMALL, archive_size * ratio))


def _check_limits(package: Package, tar_size: int) -> None:
    """Refuse a new package that ``unpacked_limit`` would not let anybody unpack. Raises UNSUPPORTED."""
    try:
        fits = tar_size <= unpacked_limit(package)
    except DrumheadError:
        fits = False
    if not fits:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"package {package.name} takes {package.unpacked_size >> 20} MiB, {package.archive_size >> 10} KiB packed; "
            f"a package takes at most {MAX_UNPACKED >> 20} MiB, {MAX_ARCHIVE >> 20} MiB packed, and, above "
            f"{SMALL >> 20} MiB, {MAX_RATIO} times what it takes packed. Leave files out, such as large ones of zeros",
        )


def check_version(package: Package) -> None:
    """Refuse a new package whose version the store cannot name or sort. Raises UNVERIFIED."""
    if fault := version_fault(package.version):
        raise DrumheadError(ErrorCode.UNVERIFIED, f"package {package.name}: {fault}")


class PackageStore:
    """The packages of one home. Reading and writing need no lock, because records and blobs appear by rename."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.blobs = Blobs(home)

    def list(self) -> list[Package]:
        """Return every version of every package, sorted by name and version, oldest first."""
        files = files_in(self._home.packages, "**/*.json")
        found = [read_record(file, Package, "delete it, then build or pull the package again") for file in files]
        return sorted(found, key=lambda package: (package.name, version_key(package.version)))

    def find(self, ref: PackageRef) -> Package:
        """Return the requested version, or else the newest. Raises NOT_FOUND."""
        versions = [package for package in self.list() if package.name == ref.name]
        if ref.version:
            versions = [package for package in versions if package.version == ref.version]
        if not versions:
            asked = f"{ref.name}@{ref.version}" if ref.version else ref.name
            raise DrumheadError(
                ErrorCode.NOT_FOUND,
                f"package {asked} is not in the local store; `drumhead package pull {asked}` fetches it, and "
                f"`drumhead package build {ref.name}` builds it if there is a recipe",
            )
        return versions[-1]

    def add(self, tree: Tree, package: Package) -> Package:
        """Store `tree` as the archive and the layer of `package`. Return the record with digests and sizes.

        Raises UNVERIFIED for a version that cannot be stored, UNSUPPORTED for a package that is too large.
        """
        check_version(package)
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        with self.blobs.writing() as writing:
            with writing.path.open("wb") as out, compressor.stream_writer(out) as packed:
                tar_size = write_tar(tree, packed)
            size = writing.path.stat().st_size
            record = msgspec.structs.replace(package, archive_size=size, unpacked_size=tree.size)
            _check_limits(record, tar_size)
        assert writing.blob is not None
        return self.pack(msgspec.structs.replace(record, archive=writing.blob.digest), tree)

    def pack(self, package: Package, tree: Tree | None = None) -> Package:
        """Store a record whose archive is already stored. Pack the package's layer if necessary, which blocks the
        thread.
        """
        if package.kind in LAYERED and package.layer("squashfs") is None:
            tree = self.tree(package) if tree is None else tree
            with self.blobs.writing() as writing:
                write_squashfs(tree, writing.path, level=LAYER_LEVEL)
            assert writing.blob is not None
            layer = PackedLayer(
                filesystem="squashfs", source=tree.digest(), digest=writing.blob.digest, size=writing.blob.size
            )
            package = msgspec.structs.replace(package, layers=(*package.layers, layer))
        self.put(package)
        return package

    def put(self, package: Package) -> None:
        """Store a record whose blobs are already stored."""
        for digest in package.blobs:
            self.blobs.find(digest)
        with replacing(self._record(package)) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(package), indent=1) + b"\n")

    def tree(self, package: Package) -> Tree:
        """Return the files of a package after verifying its archive. Raises NOT_FOUND, UNVERIFIED."""
        archive = self.blobs.verified(package.archive)
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        try:
            with archive.open("rb") as packed, decompressor.stream_reader(packed) as source:
                return read_tar(source, unpacked_limit(package), Spool(self._home.blobs))
        except zstandard.ZstdError as error:
            raise DrumheadError(ErrorCode.UNVERIFIED, f"the archive of {package.name} is damaged: {error}") from error

    def _record(self, package: Package) -> Path:
        version = package.version.replace("/", "_")
        return self._home.packages / package.name / f"{version}.json"


def parse_ref(text: str) -> PackageRef:
    """Parse ``NAME`` or ``NAME@VERSION``. Raises USAGE."""
    name, at, version = text.partition("@")
    if not re.fullmatch(PACKAGE_NAME, name) or (at and not version):
        raise DrumheadError(ErrorCode.USAGE, f"{text!r} is not a package name (NAME or NAME@VERSION)")
    return PackageRef(name=name, version=version)
