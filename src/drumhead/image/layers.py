"""Layers: trees written as file systems into the blob store, found again by what they were made from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import Blobs, replacing
from drumhead.closure import Index, index_of
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.erofs import write_erofs
from drumhead.image.records import Blob, Layer
from drumhead.image.squashfs import write_squashfs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drumhead.home import Home
    from drumhead.image.records import Filesystem, LayerKind
    from drumhead.report import Report
    from drumhead.tree import Tree

LEVEL = 22
APPLICATION_LEVEL = 9
"""What is edited every minute is packed less hard."""


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a tree without having it: cache/layers/SOURCE.json."""

    source: str
    files: int
    unpacked_size: int
    index: Index
    blobs: dict[str, Blob] = {}


class Layers:
    """The layers of one home, written in one kind of file system."""

    def __init__(self, home: Home, filesystem: Filesystem, report: Report) -> None:
        self._home = home
        self._blobs = Blobs(home)
        self._filesystem: Filesystem = filesystem
        self._report = report

    def from_key(self, kind: LayerKind, name: str, key: str, make: Callable[[], Tree]) -> tuple[Layer, LayerRecord]:
        """The layer of a tree that `key` determines (a package's digest, a lock's): `make` is called when it is new."""
        digest = hashlib.sha256(f"{kind}\0{key}".encode()).hexdigest()
        file = self._home.cache / "layers" / f"{digest}.key"
        if file.is_file() and (known := self._known(file.read_text())):
            return self._layer(kind, name, known), known
        tree = make()
        made = self.from_tree(kind, name, tree)
        with replacing(file) as temporary:
            temporary.write_text(made[1].source)
        return made

    def from_tree(self, kind: LayerKind, name: str, tree: Tree) -> tuple[Layer, LayerRecord]:
        """The layer of `tree`, written when no equal one was."""
        source = tree.digest()
        record = self._known(source)
        if record is None:
            record = self._write(kind, name, tree, source)
        return self._layer(kind, name, record), record

    def record(self, source: str) -> LayerRecord | None:
        """What is known of a tree by its digest, whether its layer is still there or not."""
        file = self._home.cache / "layers" / f"{source}.json"
        if not file.is_file():
            return None
        try:
            return msgspec.json.decode(file.read_bytes(), type=LayerRecord)
        except msgspec.DecodeError:
            return None

    def _known(self, source: str) -> LayerRecord | None:
        record = self.record(source)
        blob = record.blobs.get(self._filesystem) if record else None
        return record if blob and self._blobs.path(blob.digest).is_file() else None

    def _write(self, kind: LayerKind, name: str, tree: Tree, source: str) -> LayerRecord:
        files = sum(entry.kind != "directory" for _, entry in tree)
        self._report(f"packing {name}", 0, files)
        with self._blobs.writing() as writing:
            level = APPLICATION_LEVEL if kind == "application" else LEVEL
            write_layer(
                tree,
                writing.path,
                self._filesystem,
                level,
                lambda done: self._report(f"packing {name}", min(done, files - 1), files),
            )
        assert writing.blob is not None
        old = self.record(source)
        record = LayerRecord(
            source=source,
            files=files,
            unpacked_size=tree.size,
            index=old.index if old else index_of(tree),
            blobs={**(old.blobs if old else {}), self._filesystem: writing.blob},
        )
        with replacing(self._home.cache / "layers" / f"{source}.json") as temporary:
            temporary.write_bytes(msgspec.json.encode(record))
        self._report(f"packing {name}", files, files)
        return record

    def _layer(self, kind: LayerKind, name: str, record: LayerRecord) -> Layer:
        return Layer(
            kind=kind,
            name=name,
            filesystem=self._filesystem,
            source=record.source,
            blob=record.blobs[self._filesystem],
            files=record.files,
            unpacked_size=record.unpacked_size,
        )


def write_layer(
    tree: Tree, path: Path, filesystem: Filesystem, level: int, written: Callable[[int], None] | None = None
) -> None:
    """Write `tree` as a file system of the given kind; `written` is told the files done. Raises HOST_TOOL."""
    match filesystem:
        case "squashfs":
            write_squashfs(tree, path, level=level, written=written)
        case "erofs":
            write_erofs(tree, path)
        case "rofs":
            raise DrumheadError(ErrorCode.UNSUPPORTED, "rofs is for guest osv, which this drumhead does not have")
