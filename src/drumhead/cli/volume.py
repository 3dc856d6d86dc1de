"""``drumhead volume create``, ``list`` and ``delete``: disks that outlive their machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from drumhead.cli.flags import Json
from drumhead.cli.output import notice, print_json, print_table, size_text
from drumhead.guest import find_guest
from drumhead.home import files_in, find_home
from drumhead.machine.instances import Instances
from drumhead.machine.spec.options import read_disk_size, read_volume_name
from drumhead.machine.volume.volumes import create_volume, delete_volume, volume_path


async def create_command(
    name: str,
    /,
    *,
    size: str = "1G",
    format: Literal["raw"] = "raw",  # noqa: ARG001 - there is one
    guest: Annotated[Literal["linux", "osv"], Parameter(name="--guest")] = "linux",
) -> None:
    """Create an empty volume. `drumhead run --volume` also creates a volume if it does not exist.

    Parameters
    ----------
    name:
        The name of the volume.
    size:
        The capacity (512M, 2G). The volume takes space on the host only as it fills.
    format:
        The format of the disk; only raw exists.
    guest:
        The guest that will use the volume; OSv does not support every feature of Linux's file system.
    """
    await create_volume(
        find_home(), read_volume_name(name), read_disk_size(size, what="size of a volume"), find_guest(guest)
    )
    print(name)


def list_command(*, json: Json = False) -> None:
    """List the volumes, the space that they take on this host, and the instances that use them."""
    home = find_home()
    users: dict[Path, list[str]] = {}
    for launch in Instances(home).launches():
        for volume in launch.spec.volumes:
            users.setdefault(volume_path(home, volume), []).append(launch.spec.name)
    found = [(path, path.stat(), users.get(path, [])) for path in files_in(home.volumes, "*.raw")]
    if json:
        print_json(
            [
                {"name": path.stem, "size": about.st_size, "on_disk": about.st_blocks * 512, "instances": names}
                for path, about, names in found
            ]
        )
        return
    rows = [
        (path.stem, size_text(about.st_size), size_text(about.st_blocks * 512), ", ".join(names))
        for path, about, names in found
    ]
    print_table(("Name", "Size", "On disk", "Instances"), rows)


def delete_command(name: str, /, *names: str) -> None:
    """Delete volumes and their data.

    Parameters
    ----------
    name:
        The name of the volume.
    names:
        The names of further volumes.
    """
    home = find_home()
    for one in (name, *names):
        delete_volume(home, one, Instances(home).all())
        notice(f"Deleted volume: {one}")
