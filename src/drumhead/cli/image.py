"""``drumhead images``, ``rmi``, ``info``, ``export``, ``image push`` and ``pull``: what was composed."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from drumhead.cli.output import print_json, print_table, progress, size_text
from drumhead.home import find_home
from drumhead.image.store import ImageStore, facts

Guest = Annotated[Literal["linux", "osv"] | None, Parameter(name="--guest")]
Json = Annotated[bool, Parameter(name="--json", negative="")]


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
    """Delete images, and what nothing else needs of them.

    Parameters
    ----------
    names:
        The images' names.
    guest:
        linux or osv, where both have an image of this name.
    """
    store = ImageStore(find_home())
    for name in names:
        freed = store.remove(name, guest or "")
        print(f"deleted {name}, {size_text(freed)} freed")


def info_command(name: str, *, guest: Guest = None, json: Json = False) -> None:
    """Say what an image is: its size and format (as qemu-img info does), and what is inside.

    Parameters
    ----------
    name:
        The image's name.
    guest:
        linux or osv, where both have an image of this name (linux by default).
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
    *,
    format: Annotated[Literal["qcow2", "raw", "oci"], Parameter(name=["--format", "-f"])] = "qcow2",
    guest: Guest = None,
) -> None:
    """Write an image as a bootable disk (Linux: BIOS and UEFI; OSv: BIOS) or as an OCI layout.

    Parameters
    ----------
    name:
        The image's name.
    out:
        The file to write (oci: a directory).
    format:
        qcow2, raw or oci.
    guest:
        linux or osv, where both have an image of this name (linux by default).
    """
    from drumhead.image.export.export import export_image  # noqa: PLC0415 - only this command writes disks

    await asyncio.to_thread(export_image, find_home(), name, format, out, guest or "")
    print(f"wrote {out}")


async def push_command(name: str, *, tag: str = "", remote: str = "", guest: Guest = None) -> None:
    """Send an image to a registry; what the registry has of it is not sent again.

    Parameters
    ----------
    name:
        The image's name.
    tag:
        Its tag there; the image's version by default (and -osv behind it for that guest).
    remote:
        Which remote; the only one by default.
    guest:
        linux or osv, where both have an image of this name (linux by default).
    """
    from drumhead.image.transfer import push_image  # noqa: PLC0415 - only this command and pull need the network
    from drumhead.package.remote.remotes import find_remote  # noqa: PLC0415

    home = find_home()
    with progress("pushing") as report:
        reference, digest = await push_image(home, name, find_remote(home, remote), tag, report, guest=guest or "")
    print(f"pushed {reference} {digest}")


async def pull_command(name: str, reference: str = "", *, remote: str = "", json: Json = False) -> None:
    """Fetch an image from a registry, every byte checked; it runs without its packages and without its project.

    Parameters
    ----------
    name:
        The image's name.
    reference:
        Its tag there (`latest` or else the newest by default), or sha256:… of its manifest, as push printed it.
    remote:
        Which remote; the only one by default.
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
