"""``drumhead export``."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from drumhead.cli.flags import Guest
from drumhead.cli.output import notice
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.containers import services_of, services_of_config_sets
from drumhead.fleet.file import read_fleet
from drumhead.home import find_home
from drumhead.image.export.export import export_container, export_image
from drumhead.image.store import ImageStore

Format = Literal["qcow2", "raw", "oci", "container", "containerdisk"]


async def export_command(
    name: str,
    out: Path,
    /,
    *,
    format: Annotated[Format, Parameter(name=["--format", "-f"])] = "qcow2",
    guest: Guest = None,
    run: str = "",
    fleet: Path | None = None,
    user: str = "65534:65534",
) -> None:
    """Write an image as a bootable disk, as a drumhead OCI artifact, or as container images.

    Linux disks boot by BIOS and UEFI, OSv disks by BIOS only. KubeVirt starts machines from a containerdisk. Container
    images, one for each config set or, with --fleet, for each member that runs the image, share their layers.

    Parameters
    ----------
    name:
        The name of the image.
    out:
        The file to write; for oci, container and containerdisk, a directory.
    format:
        The format to write.
    guest:
        The guest of the image, if images of this name exist for both guests; by default linux.
    run:
        For container: the only config set to write an image for.
    fleet:
        For container: the fleet file that gives each image its variables, ports, volumes and health check.
    user:
        For container: the user and the group, UID:GID, that run the command and own the volumes.
    """
    if format == "container":
        await asyncio.to_thread(_export_container, name, out, guest or "", run, fleet, user)
    elif run or fleet:
        raise DrumheadError(ErrorCode.USAGE, "--run and --fleet need --format container")
    else:
        await asyncio.to_thread(export_image, find_home(), name, format, out, guest or "")
    print(f"wrote {out}")


def _export_container(name: str, out: Path, guest: str, run: str, fleet: Path | None, user: str) -> None:
    if run and fleet:
        raise DrumheadError(ErrorCode.USAGE, "give --run or --fleet, not both")
    if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", user):
        raise DrumheadError(ErrorCode.USAGE, f"{user!r} is not a user; write numbers, UID:GID, like 65534:65534")
    image = ImageStore(find_home()).find(name, guest)
    services = services_of(image, read_fleet(fleet, str(fleet))) if fleet else services_of_config_sets(image, run)
    for sentence in export_container(find_home(), image, services, user, out):
        notice(sentence)
