"""``drumhead images``, ``rmi``, ``info``, ``export``, ``image push`` and ``pull``: what was composed."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from drumhead.cli.flags import Guest, Json
from drumhead.cli.output import notice, print_json, print_table, progress, size_text
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.image.store import ImageStore, facts


def images_command(*, json: Json = False) -> None:
    """List the images of the local store."""
    found = [facts(image) for image in ImageStore(find_home()).list()]
    if json:
        print_json(found)
        return
    rows = [
        (one.image, one.guest, str(len(one.layers)), size_text(one.disk_size), one.default or "none") for one in found
    ]
    print_table(("Name", "Guest", "Layers", "Disk size", "Default command"), rows)


def rmi_command(*names: str, guest: Guest = None) -> None:
    """Delete images, and their layers that no other image uses.

    Parameters
    ----------
    names:
        The names of the images.
    guest:
        The guest of the image, where images of this name exist for both.
    """
    store = ImageStore(find_home())
    for name in names:
        freed = store.remove(name, guest or "")
        print(f"deleted {name}, {size_text(freed)} freed")


def info_command(name: str, /, *, guest: Guest = None, json: Json = False) -> None:
    """Show the size and format of an image, as qemu-img info does, and its layers and commands.

    Parameters
    ----------
    name:
        The name of the image.
    guest:
        The guest of the image, where images of this name exist for both; by default linux.
    json:
        Print JSON; sizes are in bytes.
    """
    about = facts(ImageStore(find_home()).find(name, guest or ""))
    if json:
        print_json(about)
        return
    print(f"image: {about.image}")
    print(f"file format: {about.format}")
    print(f"virtual size: {size_text(about.virtual_size)} ({about.virtual_size} bytes)")
    print(f"disk size: {size_text(about.disk_size)}")
    print(f"guest: {about.guest}")
    print(f"kernel: {about.kernel}")
    print("layers:")
    for layer in about.layers:
        print(f"    {layer.name}: {size_text(layer.blob.size)} {layer.filesystem}, {layer.files} files")
    print("commands:" if about.commands else "commands: none")
    for key, command in about.commands.items():
        print(f"    {key}{' (default)' if key == about.default else ''}: {shlex.join(command.argv)}")


async def export_command(
    name: str,
    out: Path,
    /,
    *,
    format: Annotated[Literal["qcow2", "raw", "oci", "container"], Parameter(name=["--format", "-f"])] = "qcow2",
    guest: Guest = None,
    run: str = "",
    fleet: Path | None = None,
    user: str = "65534:65534",
) -> None:
    """Write an image as a bootable disk, as an OCI artifact of drumhead, or as container images.

    Linux disks boot by BIOS and by UEFI, OSv disks by BIOS. For containers, the layout has an image for each config set
    or, with --fleet, for each member of a fleet file that runs the image; they share their layers.

    Parameters
    ----------
    name:
        The name of the image.
    out:
        The file to write; for oci and container, a directory.
    format:
        The format of what is written.
    guest:
        The guest of the image, where images of this name exist for both; by default linux.
    run:
        For container: the only config set to write an image for.
    fleet:
        For container: the fleet file that gives each image its variables, ports, volumes and health check.
    user:
        For container: the user and the group, UID:GID, that run the command and own the volumes.
    """
    from drumhead.image.export.export import export_image  # noqa: PLC0415 - only this command writes disks

    home = find_home()
    if format == "container":
        await asyncio.to_thread(_export_container, name, out, guest or "", run, fleet, user)
    elif run or fleet:
        raise DrumheadError(ErrorCode.USAGE, "--run and --fleet are for --format container")
    else:
        await asyncio.to_thread(export_image, home, name, format, out, guest or "")
    print(f"wrote {out}")


def _export_container(name: str, out: Path, guest: str, run: str, fleet: Path | None, user: str) -> None:
    from drumhead.fleet.containers import services_of, services_of_config_sets  # noqa: PLC0415
    from drumhead.fleet.file import read_fleet  # noqa: PLC0415
    from drumhead.image.export.export import export_container  # noqa: PLC0415

    if run and fleet:
        raise DrumheadError(ErrorCode.USAGE, "give --run or --fleet, not both")
    if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", user):
        raise DrumheadError(ErrorCode.USAGE, f"{user!r} is not a user; write numbers, UID:GID, like 65534:65534")
    image = ImageStore(find_home()).find(name, guest)
    services = services_of(image, read_fleet(fleet, str(fleet))) if fleet else services_of_config_sets(image, run)
    for sentence in export_container(find_home(), image, services, user, out):
        notice(sentence)


async def push_command(name: str, /, *, tag: str = "", remote: str = "", guest: Guest = None) -> None:
    """Send an image to a registry; layers that the registry has are not sent again.

    Parameters
    ----------
    name:
        The name of the image.
    tag:
        The tag in the registry; by default the version of the image, with -osv appended for that guest.
    remote:
        The remote; by default the only one.
    guest:
        The guest of the image, where images of this name exist for both; by default linux.
    """
    from drumhead.image.transfer import push_image  # noqa: PLC0415 - only this command and pull need the network
    from drumhead.package.remote.remotes import find_remote  # noqa: PLC0415

    home = find_home()
    with progress("pushing") as report:
        reference, digest = await push_image(home, name, find_remote(home, remote), tag, report, guest=guest or "")
    print(f"pushed {reference} {digest}")


async def pull_command(name: str, reference: str = "", /, *, remote: str = "", json: Json = False) -> None:
    """Fetch an image from a registry and check every byte; it runs without its packages and project.

    Parameters
    ----------
    name:
        The name of the image.
    reference:
        The tag in the registry, by default latest or else the newest; or sha256:… as push printed it.
    remote:
        The remote; by default the only one.
    json:
        Print what `drumhead info --json` prints.
    """
    from drumhead.image.transfer import pull_image  # noqa: PLC0415
    from drumhead.package.remote.remotes import find_remote  # noqa: PLC0415

    home = find_home()
    with progress("pulling") as report:
        about = facts(await pull_image(home, name, find_remote(home, remote), reference, report))
    if json:
        print_json(about)
    else:
        print(f"pulled {about.image} for {about.guest}: {len(about.layers)} layers, {size_text(about.disk_size)}")
