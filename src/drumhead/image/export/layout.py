"""Write container images into an OCI image layout, which podman, skopeo and docker read.

The same contents give the same bytes at any time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from drumhead.blobs import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from drumhead.filesystem.squashfs import Attributes

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CREATED = "1970-01-01T00:00:00Z"
COMPRESSION = 6
REFERENCE = re.compile(r"[A-Za-z0-9]+((--|[-._:@+/])[A-Za-z0-9]+)*")
"""The names that images may have in a layout (OCI image specification, annotations); tools find no others."""


@dataclass(frozen=True, kw_only=True)
class LayoutBlob:
    """A file of the layout."""

    digest: str
    size: int
    diff_id: str = ""
    """The digest of the layer's uncompressed tar."""


def config_of(layers: Sequence[LayoutBlob], config: Mapping[str, object]) -> dict[str, object]:
    """Return the configuration of an image. `config` holds the settings for the container runtime."""
    return {
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
    }


def manifest_of(config: LayoutBlob, layers: Sequence[LayoutBlob], annotations: Mapping[str, str]) -> dict[str, object]:
    """Return the manifest of an image."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(config, CONFIG_TYPE),
        "layers": [_descriptor(layer, LAYER_TYPE) for layer in layers],
        "annotations": annotations,
    }


def entry(manifest: LayoutBlob, name: str) -> dict[str, object]:
    """Return the entry of an image in the index: its manifest and its reference `name`."""
    return {
        **_descriptor(manifest, MANIFEST_TYPE),
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": name},
    }


def write_index(out: Path, manifests: Sequence[Mapping[str, object]]) -> None:
    """Complete the layout in `out` with its index. This blocks the calling thread."""
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
    for name, document in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with replacing(out / name) as temporary:
            temporary.write_bytes(encode(document))


def encode(document: object) -> bytes:
    """Return a document as canonical JSON."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def put(out: Path, contents: bytes) -> LayoutBlob:
    """Write a blob into the layout. This blocks the calling thread."""
    digest = hashlib.sha256(contents).hexdigest()
    with replacing(out / "blobs" / "sha256" / digest) as temporary:
        temporary.write_bytes(contents)
    return LayoutBlob(digest=digest, size=len(contents))


def _descriptor(blob: LayoutBlob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{blob.digest}", "size": blob.size}


class LayerWriter:
    """A writer of a gzip-compressed tar without times into the layout's blobs."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def __enter__(self) -> Self:
        handle, name = tempfile.mkstemp(dir=self._out, prefix=".layer-")
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb")
        self._gzip = gzip.GzipFile("", "wb", COMPRESSION, self._file, mtime=0)
        self._plain = _Hashing(self._gzip)
        self._tar = tarfile.open(fileobj=self._plain, mode="w|", format=tarfile.PAX_FORMAT)  # type: ignore[call-overload]
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, path: Path, name: str, attributes: Attributes) -> None:
        """Add one file, directory or symbolic link with these attributes instead of those that it has here."""
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.gid = attributes.mode, attributes.uid, attributes.gid
        if path.is_symlink():
            info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            self._tar.addfile(info)
        elif path.is_dir():
            info.type = tarfile.DIRTYPE
            self._tar.addfile(info)
        else:
            info.size = path.stat().st_size
            with path.open("rb") as contents:
                self._tar.addfile(info, contents)

    def add_directory(self, name: str, uid: int, gid: int) -> None:
        """Add a directory that only its user can access."""
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o700, uid, gid
        self._tar.addfile(info)

    def finish(self) -> LayoutBlob:
        """Complete the layer and move it to the blobs."""
        self._tar.close()
        self._gzip.close()
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        blob = LayoutBlob(digest=digest, size=self._path.stat().st_size, diff_id=self._plain.hash.hexdigest())
        place = self._out / "blobs" / "sha256" / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        self._path.chmod(0o644)
        self._path.replace(place)
        return blob


class _Hashing:
    """A stream that hashes data and passes it on."""

    def __init__(self, out: gzip.GzipFile) -> None:
        self._out = out
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self._out.write(data)


def reference_of(version: str) -> str:
    """Return the name of an image of this version in a layout: the version, or what is nearest to it."""
    if REFERENCE.fullmatch(version):
        return version
    parts = re.sub(r"([^A-Za-z0-9])[^A-Za-z0-9]*", lambda run: run[1] if run[1] in ".-+" else "_", version)
    return parts.strip("._+-") or "latest"
