"""Export an image as one file or directory for another host."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.guest.contract import RunConfig
from drumhead.image.export.artifact import write_layout
from drumhead.image.export.container import write_container
from drumhead.image.export.container_disk import write_container_disk
from drumhead.image.export.linux_disk import write_qcow2, write_raw
from drumhead.image.export.osv_disk import write_osv_raw
from drumhead.image.store import ImageStore
from drumhead.package.osv.identify import RELEASES
from drumhead.package.osv.kernel import BOOT_IMAGE
from drumhead.package.records import PackageRef
from drumhead.package.store import PackageStore
from drumhead.records import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drumhead.home import Home
    from drumhead.image.export.container import Service
    from drumhead.records import Image, ImageFiles
    from drumhead.tree import Tree

ExportFormat = Literal["qcow2", "raw", "oci", "containerdisk"]


def export_image(home: Home, name: str, form: ExportFormat, out: Path, guest: str = "") -> None:
    """Write the image `name` to `out` in the format `form`. This blocks the calling thread.

    A bootable disk is a file. An OCI layout, with the image's blobs or with such a disk, is a directory. `out` appears
    only when it is complete. Raises NOT_FOUND (the image, or the directory of `out`), CONFLICT (`out` exists),
    HOST_TOOL, UNSUPPORTED (OSv without its boot image).
    """
    _check_place(out)
    store = ImageStore(home)
    with store.using():
        image = store.find(name, guest)
        if form == "raw":
            _write_disk(home, image, out)
            return
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            raw, disk, layout = (Path(scratch) / name for name in ("disk.raw", "disk.qcow2", "layout"))
            if form == "oci":
                write_layout(home, image, layout)
            else:
                _write_disk(home, image, raw)
                write_qcow2(raw, disk)
            if form == "containerdisk":
                write_container_disk(image, disk, layout)
            (disk if form == "qcow2" else layout).rename(out)


def export_container(home: Home, image: Image, services: Sequence[Service], user: str, out: Path) -> list[str]:
    """Write `image` as container images into the directory `out`, and return notices. This blocks the calling thread.

    `out` appears only when it is complete. Raises CONFLICT (`out` exists), NOT_FOUND (its directory), and the errors of
    ``write_container``.
    """
    _check_place(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch, ImageStore(home).using():
        layout = Path(scratch) / "layout"
        notices = write_container(home, image, services, user, layout)
        layout.rename(out)
    return notices


def _check_place(out: Path) -> None:
    """Check that `out` can be created. Raises CONFLICT if it exists, NOT_FOUND if it would be in no directory."""
    if not out.parent.is_dir():
        raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no directory {out.parent}; create it first")
    if out.exists():
        raise DrumheadError(ErrorCode.CONFLICT, f"{out} already exists; choose another name or delete it first")


def _write_disk(home: Home, image: Image, out: Path) -> None:
    files = ImageStore(home).files(image)
    store = PackageStore(home)
    kernel = store.tree(store.find(PackageRef(name=image.kernel.package, version=image.kernel.version)))
    if image.guest == "osv":
        _write_osv(image, files, kernel, out)
        return
    config = RunConfig(hostname="drumhead", command=Command(argv=("true",)))
    plan = find_guest(image.guest).plan(image, files, config, out.parent, ())
    write_raw(image, files, kernel["vmlinuz"].read(), plan.cmdline, out)


def _write_osv(image: Image, files: ImageFiles, kernel: Tree, out: Path) -> None:
    from drumhead.guest.osv.exported import exported_start  # noqa: PLC0415 - a guest is imported when it is used

    if BOOT_IMAGE not in kernel:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"the kernel osv@{image.kernel.version} was added without its boot image; get loader.img of the same "
            f"release from {RELEASES}, `drumhead kernel add` it together with the kernel, and compose again",
        )
    if image.default not in image.commands:
        raise DrumheadError(
            ErrorCode.USAGE,
            f"{image.name} has no default command, and OSv can start only that; compose it with --run CONFIG_SET",
        )
    cmdline, config = exported_start(image.commands[image.default], hostname="drumhead")
    write_osv_raw(files, kernel[BOOT_IMAGE].read(), cmdline, config, out)
