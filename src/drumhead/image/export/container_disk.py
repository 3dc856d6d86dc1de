"""Write a disk as a containerDisk of KubeVirt: a container image whose only file is the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.filesystem.squashfs import Attributes
from drumhead.image.export.layout import (
    LayerWriter,
    config_of,
    encode,
    entry,
    manifest_of,
    put,
    reference_of,
    write_index,
)

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.records import Image

OWNER = 107
"""KubeVirt's user qemu, which reads the disk."""


def write_container_disk(image: Image, disk: Path, out: Path) -> None:
    """Write an OCI layout with the qcow2 file `disk` of `image` into the directory `out`. This blocks the thread."""
    out.mkdir(parents=True)
    with LayerWriter(out) as writer:
        writer.add_directory("disk", OWNER, OWNER)
        writer.add(disk, "disk/disk.qcow2", Attributes(0o644, OWNER, OWNER))
        layers = [writer.finish()]
    annotations = {"org.opencontainers.image.title": image.title, "org.opencontainers.image.version": image.version}
    config = put(out, encode(config_of(layers, {"Labels": annotations})))
    manifest = put(out, encode(manifest_of(config, layers, annotations)))
    write_index(out, [entry(manifest, reference_of(image.version))])
