"""Store layers: trees that are written as file systems into the blob store and looked up by their inputs."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import Blobs, replacing
from drumhead.closure import Index, index_of
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.erofs import write_erofs
from drumhead.filesystem.rofs.root import unite
from drumhead.filesystem.rofs.writer import write_rofs
from drumhead.filesystem.squashfs import write_squashfs
from drumhead.guest.contract import Finding
from drumhead.image.layers.mounted import mounted_path, write_mounted
from drumhead.image.timezones import zone_users
from drumhead.records import Blob, Filesystem, Kernel, Layer, read_cached
from drumhead.report import silent
from drumhead.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drumhead.guest.contract import Guest
    from drumhead.home import Home
    from drumhead.package.records import PackedLayer
    from drumhead.records import LayerKind
    from drumhead.report import Report

LEVEL = 14
"""Level 14 takes a third of the time of level 19 and gives 0.9 % more bytes. (Level 13 takes two thirds of the time of
level 14 and gives 5 % more bytes than level 19.) Packages are packed once, at a higher level (``package.store``).
"""
APPLICATION_LEVEL = 5
"""The application changes often, so it is packed fast: level 9 gives 2.5 % fewer bytes and takes 50 % longer."""
PACKING: dict[Filesystem, int] = {"squashfs": 2, "erofs": 1, "rofs": 1}
"""Increase this if the same tree should give other bytes (another level or block size), to rebuild older layers."""
KEPT_SECONDS = 14 * 24 * 3600.0
"""Seconds after its last use for which a layer with a key is kept for the next image."""


ROOT_RULES = "root 2"
"""Names the way in which layers are united; a root that was made in another way is made again."""


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a tree (cache/layers/SOURCE.json), which saves reading the tree again."""

    source: str
    files: int
    unpacked_size: int
    index: Index
    blobs: dict[str, Blob] = {}
    """The tree's layers by file system and packing (``squashfs 2``)."""
    findings: dict[str, tuple[Finding, ...]] = {}
    """Files that a guest cannot run, by guest and version of its rules (``linux 1``)."""
    zone_users: tuple[str, ...] | None = None
    """Installed Python packages that look time zones up; None in a record that was written before this was asked."""


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """A layer and the record of its tree. `reused` means that it did not have to be built."""

    layer: Layer
    record: LayerRecord
    reused: bool


class LayerStore:
    """The layers of one home, written in one kind of file system."""

    def __init__(self, home: Home, filesystem: Filesystem, report: Report, guest: Guest | None = None) -> None:
        """With a `guest`, each tree is checked once, when its layer is stored; ``findings`` returns the result."""
        self._home = home
        self._guest = guest
        self._rules = f"{guest.name} {guest.check_rules}" if guest else ""
        self._blobs = Blobs(home)
        self.filesystem: Filesystem = filesystem
        self._packing = f"{filesystem} {PACKING[filesystem]}"
        self._has_mounted = filesystem == "squashfs"
        self._report = report

    def from_key(
        self, kind: LayerKind, name: str, key: str, make: Callable[[], Tree], packed: PackedLayer | None = None
    ) -> StoredLayer:
        """Return the layer of the tree that `key` determines. `make` returns the tree and is called only for a new
        layer.

        `packed` is the tree's layer if it is already packed. Raises UNVERIFIED if it belongs to another tree.
        """
        digest = hashlib.sha256(f"{kind}\0{key}".encode()).hexdigest()
        file = self._home.cache / "layers" / f"{digest}.key"
        if packed and not self._blobs.path(packed.digest).is_file():
            packed = None
        if file.is_file() and (known := self._known(file.read_text(), packed)):
            os.utime(file)
            return StoredLayer(layer=self._layer(kind, name, known), record=known, reused=True)
        built = self.from_tree(kind, name, make(), packed)
        with replacing(file) as temporary:
            temporary.write_text(built.record.source)
        return replace(built, reused=False)

    def from_tree(self, kind: LayerKind, name: str, tree: Tree, packed: PackedLayer | None = None) -> StoredLayer:
        """Return the layer of `tree`. Write it unless an equal tree was written before."""
        source = tree.digest()
        reused = self.record(source) is not None
        if packed and packed.source != source:
            raise DrumheadError(
                ErrorCode.UNVERIFIED, f"the layer of {name} was not made from its archive; pull or build it again"
            )
        record = self._known(source, packed)
        if record is None:
            blob = Blob(digest=packed.digest, size=packed.size) if packed else self._stored(self.record(source))
            record = self._keep(tree, source, blob or self._write(kind, name, tree))
        return StoredLayer(layer=self._layer(kind, name, record), record=record, reused=reused)

    def root(self, layers: list[Layer]) -> Layer:
        """Return a layer that unites `layers` for a guest without an overlay. Raises UNVERIFIED, UNSUPPORTED."""
        source = hashlib.sha256("\0".join([ROOT_RULES, *(layer.blob.digest for layer in layers)]).encode()).hexdigest()
        record = self._known(source)
        if record is None:
            blob = self._blobs.put(unite([self._blobs.find(layer.blob.digest) for layer in layers]))
            record = self._keep(Tree(), source, blob)
        return self._layer("root", "root", record)

    def record(self, source: str) -> LayerRecord | None:
        """Return the record of the tree with this digest, even if its layer is no longer stored."""
        return read_cached(self._home.cache / "layers" / f"{source}.json", LayerRecord)

    def _known(self, source: str, packed: PackedLayer | None = None) -> LayerRecord | None:
        """Return the record of a tree whose layer is stored and, if `packed` is given, is that layer."""
        record = self.record(source)
        blob = self._stored(record)
        if record is None or blob is None or (packed and packed.digest != blob.digest):
            return None
        if self._has_mounted and not mounted_path(self._home, blob.digest).is_file():
            return None
        is_checked = record.zone_users is not None and (not self._rules or self._rules in record.findings)
        return record if is_checked else None

    def _stored(self, record: LayerRecord | None) -> Blob | None:
        """Return the stored layer of a tree, which may not have been checked for this guest yet."""
        blob = record.blobs.get(self._packing) if record else None
        return blob if blob and self._blobs.path(blob.digest).is_file() else None

    def findings(self, record: LayerRecord) -> tuple[Finding, ...]:
        """Return the findings about files in a layer that the guest cannot run."""
        return record.findings.get(self._rules, ())

    def _write(self, kind: LayerKind, name: str, tree: Tree) -> Blob:
        files = sum(entry.kind != "directory" for _, entry in tree)
        self._report(f"packing {name}", 0, files)
        with self._blobs.writing() as writing:
            level = APPLICATION_LEVEL if kind == "application" else LEVEL
            write_layer(
                tree,
                writing.path,
                self.filesystem,
                level,
                lambda done: self._report(f"packing {name}", min(done, files - 1), files),
            )
        assert writing.blob is not None
        self._report(f"packing {name}", files, files)
        return writing.blob

    def _keep(self, tree: Tree, source: str, blob: Blob) -> LayerRecord:
        old = self.record(source)
        if self._has_mounted:
            write_mounted(self._home, blob.digest, tree)
        checked = {self._rules: self._guest.check(tree)} if self._guest else {}
        record = LayerRecord(
            source=source,
            files=sum(entry.kind != "directory" for _, entry in tree),
            unpacked_size=tree.size,
            index=old.index if old else index_of(tree),
            blobs={**(old.blobs if old else {}), self._packing: blob},
            findings={**(old.findings if old else {}), **checked},
            zone_users=zone_users(tree),
        )
        with replacing(self._home.cache / "layers" / f"{source}.json") as temporary:
            temporary.write_bytes(msgspec.json.encode(record))
        return record

    def _layer(self, kind: LayerKind, name: str, record: LayerRecord) -> Layer:
        return Layer(
            kind=kind,
            name=name,
            filesystem=self.filesystem,
            source=record.source,
            blob=record.blobs[self._packing],
            files=record.files,
            unpacked_size=record.unpacked_size,
        )


def kept_blobs(home: Home) -> set[str]:
    """Return recently used blobs that the next image may need although no image names them: kernels and keyed
    layers.
    """
    since = time.time() - KEPT_SECONDS

    def recent(pattern: str) -> list[Path]:
        return [file for file in home.cache.glob(pattern) if file.stat().st_mtime > since]

    layers = LayerStore(home, "squashfs", silent)
    records = filter(None, (layers.record(key.read_text()) for key in recent("layers/*.key")))
    kernels = filter(None, (read_cached(file, Kernel) for file in recent("kernels/*.json")))
    return {blob.digest for record in records for blob in record.blobs.values()} | {
        blob.digest for kernel in kernels for blob in (kernel.vmlinux, kernel.initrd) if blob
    }


def write_layer(
    tree: Tree, path: Path, filesystem: Filesystem, level: int, written: Callable[[int], None] | None = None
) -> None:
    """Write `tree` as a file system. `written` is called with the number of files written so far. Raises HOST_TOOL."""
    match filesystem:
        case "squashfs":
            write_squashfs(tree, path, level=level, written=written)
        case "erofs":
            write_erofs(tree, path)
        case "rofs":
            write_rofs(tree, path, written)
