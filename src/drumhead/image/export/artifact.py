"""Write an image as an OCI artifact, in a layout on disk (which ``oras`` and ``skopeo`` read) or for a registry."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import Blobs, replacing
from drumhead.image.export.layout import reference_of
from drumhead.image.store import encode
from drumhead.package.remote.registry import LAYER_TYPE, MANIFEST_TYPE, Descriptor, Manifest, describe

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.home import Home
    from drumhead.records import Blob, Image

IMAGE_TYPE = "application/vnd.drumhead.image.v1+json"
KERNEL_TYPE = "application/vnd.drumhead.kernel.v1+xz"
INITRD_TYPE = "application/vnd.drumhead.initrd.v1"


def manifest_of(image: Image) -> tuple[Manifest, bytes]:
    """Return the manifest of an image, and its config (the image's record)."""
    record = encode(image)
    layers = [_descriptor(image.kernel.vmlinux, KERNEL_TYPE, "kernel")]
    if image.kernel.initrd:
        layers.append(_descriptor(image.kernel.initrd, INITRD_TYPE, "initrd"))
    for layer in image.layers:
        kind = layer.kind if layer.kind == "root" else layer.filesystem
        layers.append(_descriptor(layer.blob, LAYER_TYPE + kind, layer.name))
    manifest = Manifest(
        artifact_type=IMAGE_TYPE,
        config=describe(record, IMAGE_TYPE),
        layers=tuple(layers),
        annotations={"org.opencontainers.image.title": image.title, "org.opencontainers.image.version": image.version},
    )
    return manifest, record


def write_layout(home: Home, image: Image, directory: Path) -> str:
    """Write an OCI image layout into `directory` and return the manifest's digest. This blocks the calling thread."""
    manifest, record = manifest_of(image)
    encoded = msgspec.json.encode(manifest)
    top = describe(encoded, MANIFEST_TYPE)
    blobs = directory / "blobs" / "sha256"
    store = Blobs(home)
    for descriptor, contents in ((manifest.config, record), (top, encoded)):
        with replacing(blobs / descriptor.hexadecimal) as temporary:
            temporary.write_bytes(contents)
    for layer in manifest.layers:
        with replacing(blobs / layer.hexadecimal) as temporary:
            shutil.copyfile(store.find(layer.hexadecimal), temporary)
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": MANIFEST_TYPE,
                "artifactType": IMAGE_TYPE,
                "digest": top.digest,
                "size": top.size,
                "annotations": {"org.opencontainers.image.ref.name": reference_of(image.version)},
            }
        ],
    }
    for name, document in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with replacing(directory / name) as temporary:
            temporary.write_bytes(msgspec.json.encode(document))
    return top.digest


def _descriptor(blob: Blob, media_type: str, title: str) -> Descriptor:
    return Descriptor(
        media_type=media_type,
        digest=f"sha256:{blob.digest}",
        size=blob.size,
        annotations={"org.opencontainers.image.title": title},
    )
