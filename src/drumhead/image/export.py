"""Exports: an image as one file or directory that goes elsewhere."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.guest.contract import RunConfig
from drumhead.image.artifact import write_layout
from drumhead.image.disk import write_qcow2, write_raw
from drumhead.image.store import ImageStore
from drumhead.manifest.records import Command
from drumhead.package.records import PackageRef
from drumhead.package.store import PackageStore

if TYPE_CHECKING:
    from drumhead.home import Home
    from drumhead.image.records import Image

ExportFormat = Literal["qcow2", "raw", "oci"]


def export_image(home: Home, name: str, form: ExportFormat, out: Path) -> None:
    """Write the image `name` to `out`: a bootable disk (a file) or an OCI layout (a directory). Blocks.

    Raises NOT_FOUND, CONFLICT (`out` exists), HOST_TOOL.
    """
    if out.exists():
        raise DrumheadError(ErrorCode.CONFLICT, f"{out} is there already; choose another name or delete it first")
    image = ImageStore(home).find(name)
    if form == "oci":
        write_layout(home, image, out)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if form == "raw":
        _write_disk(home, image, out)
        return
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        raw = Path(scratch) / "disk.raw"
        _write_disk(home, image, raw)
        write_qcow2(raw, out)


def _write_disk(home: Home, image: Image, out: Path) -> None:
    files = ImageStore(home).files(image)
    kernel = PackageStore(home)
    package = kernel.find(PackageRef(name=image.kernel.package, version=image.kernel.version))
    bzimage = kernel.tree(package)["vmlinuz"].read()
    config = RunConfig(hostname="drumhead", command=Command(argv=("true",)))
    plan = find_guest(image.guest).plan(image, files, config, out.parent, ())
    write_raw(image, files, bzimage, plan.cmdline, out)
