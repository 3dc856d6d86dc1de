"""Write the files of an image into a directory, for inspection."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import exclusive
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.compose import Composition, compose
from drumhead.image.inputs import ComposeOptions
from drumhead.image.store import ImageStore

if TYPE_CHECKING:
    from drumhead.home import Home
    from drumhead.manifest.records import Project
    from drumhead.report import Report

SCRATCH_IMAGE = "drumhead-collect"


async def collect(home: Home, project: Project, target: Path, report: Report) -> tuple[int, tuple[str, ...]]:
    """Unpack the layers of `project` over one another into `target`. Return the number of files, and notices.

    Raises CONFLICT if `target` is not empty, and the errors of ``compose``.
    """
    if await asyncio.to_thread(lambda: target.exists() and any(target.iterdir())):
        raise DrumheadError(ErrorCode.CONFLICT, f"{target} is not empty; delete it first")
    with ExitStack() as lock:
        # Another one of this project would remove the image under this one.
        await asyncio.to_thread(lock.enter_context, exclusive(home.cache / "collect.lock"))
        made = await _unpacked(home, project, target, report)
    return await asyncio.to_thread(lambda: sum(not path.is_dir() for path in target.rglob("*"))), made.notices


async def _unpacked(home: Home, project: Project, target: Path, report: Report) -> Composition:
    """Compose an image, unpack its layers, and remove it."""
    images = ImageStore(home)
    name = f"{SCRATCH_IMAGE}/{project.package.name}"
    made = await compose(home, project, name, ComposeOptions(filesystem="squashfs", scratch=True), report)
    try:
        for layer in images.files(made.image).layers:
            await asyncio.to_thread(_unpack, layer, target)
    finally:
        await asyncio.to_thread(images.remove, name, project.package.guest)
    return made


def _unpack(layer: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name}.layer"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        host.run(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", scratch, layer])
        _merge(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _merge(layer: Path, target: Path) -> None:
    """Move the files of a layer over those of lower layers, like overlayfs. Links in `target` are not followed."""
    for name_of, directories, files in os.walk(layer):
        directory = Path(name_of)
        place = target / directory.relative_to(layer)
        for name in [*directories]:
            below = place / name
            if (directory / name).is_symlink():
                directories.remove(name)
                files.append(name)
            elif below.is_symlink() or not below.is_dir():
                below.unlink(missing_ok=True)
                below.mkdir()
        for name in files:
            if (place / name).is_dir() and not (place / name).is_symlink():
                shutil.rmtree(place / name)
            (directory / name).replace(place / name)
