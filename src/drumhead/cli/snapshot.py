"""``drumhead snapshot create``, ``list`` and ``delete``: machines that were saved before their command started."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter

from drumhead.cli.flags import Guest, Json, Whole
from drumhead.cli.output import notice, print_json, print_table, size_text
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.image.store import ImageStore
from drumhead.machine.snapshot.save import take_snapshot
from drumhead.machine.snapshot.store import Snapshots
from drumhead.machine.spec.options import read_cpus, read_memory


async def create_command(
    image: str,
    /,
    *,
    memory: Annotated[str, Parameter(name=["--memory", "-m"])] = "256M",
    cpus: Annotated[int, Whole, Parameter(name=["--cpus", "-c"])] = 1,
    guest: Guest = None,
) -> None:
    """Boot a machine of an image and save it before its command starts. From then on, `drumhead run` resumes it.

    Parameters
    ----------
    image:
        The image.
    memory:
        The memory of the machines that will resume (200M, 1G).
    cpus:
        The number of virtual CPUs of these machines.
    guest:
        The guest of the image, if images of this name exist for both guests.
    """
    home = find_home()
    started = time.monotonic()
    found = ImageStore(home).find(image, guest or "")
    made = await take_snapshot(home, found, memory=read_memory(memory), cpus=read_cpus(cpus))
    size = size_text(Snapshots(home).size(made.key))
    notice(
        f"Created snapshot: {image}, {made.memory} MiB, {made.cpus} CPU{'s' if made.cpus > 1 else ''}, "
        f"{size} on disk, {time.monotonic() - started:.1f} s"
    )


def list_command(*, json: Json = False) -> None:
    """List the snapshots and the space that they take on this host."""
    snapshots = Snapshots(find_home())
    found = [(one, snapshots.size(one.key)) for one in snapshots.list()]
    if json:
        print_json(
            [
                {
                    "image": one.image,
                    "guest": one.guest,
                    "memory": one.memory << 20,
                    "cpus": one.cpus,
                    "created_at": one.created_at,
                    "on_disk": size,
                }
                for one, size in found
            ]
        )
        return
    rows = [
        (
            one.image,
            f"{one.memory} MiB",
            str(one.cpus),
            size_text(size),
            time.strftime("%F %R", time.localtime(one.created_at)),
        )
        for one, size in found
    ]
    print_table(("Image", "Memory", "CPUs", "On disk", "Created"), rows)


def delete_command(image: str, /, *images: str) -> None:
    """Delete the snapshots of images. Running machines are not affected.

    Parameters
    ----------
    image:
        The name of the image.
    images:
        The names of further images.
    """
    snapshots = Snapshots(find_home())
    for name in (image, *images):
        found = [one for one in snapshots.list() if one.image == name]
        if not found:
            raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no snapshot of {name}")
        for one in found:
            snapshots.delete(one.key)
            notice(f"Deleted snapshot: {name}, {one.memory} MiB, {one.cpus} CPU{'s' if one.cpus > 1 else ''}")
