"""Write the files of an image into a directory, for inspection."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.compose import compose
from drumhead.image.inputs import ComposeOptions
from drumhead.image.store import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.home import Home
    from drumhead.manifest.records import Project
    from drumhead.report import Report

SCRATCH_IMAGE = "drumhead-collect"


async def collect(home: Home, project: Project, target: Path, report: Report) -> tuple[int, tuple[str, ...]]:
    """Unpack the layers of `project` over one another into `target`. Return the number of files, and notices.

    Raises CONFLICT when `target` is not empty, and whatever ``compose`` raises.
    """
    if await asyncio.to_thread(lambda: target.exists() and any(target.iterdir())):
        raise DrumheadError(ErrorCode.CONFLICT, f"{target} is not empty; delete it first")
    images = ImageStore(home)
    name = f"{SCRATCH_IMAGE}/{project.package.name}"
    made = await compose(home, project, name, ComposeOptions(filesystem="squashfs", scratch=True), report)
    try:
        for layer in images.files(made.image).layers:
            await asyncio.to_thread(_unpack, layer, target)
    finally:
        await asyncio.to_thread(images.remove, name, project.package.guest)
    return await asyncio.to_thread(lambda: sum(not path.is_dir() for path in target.rglob("*"))), made.notices


def _unpack(layer: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name}.layer"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        host.run(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", scratch, layer])
        shutil.copytree(scratch, target, symlinks=True, dirs_exist_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
