"""``drumhead images``, ``info`` and ``rmi``."""

from __future__ import annotations

import shlex

from drumhead.cli.flags import Guest, Json
from drumhead.cli.output import print_json, print_table, size_text
from drumhead.home import find_home
from drumhead.image.store import ImageStore, facts
from drumhead.machine.leftovers import sweep
from drumhead.machine.snapshot.store import Snapshots


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


def info_command(name: str, /, *, guest: Guest = None, json: Json = False) -> None:
    """Show the size and format of an image, like qemu-img info, and its layers and commands.

    Parameters
    ----------
    name:
        The name of the image.
    guest:
        The guest of the image, if images of this name exist for both guests; by default linux.
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


def rmi_command(name: str, /, *names: str, guest: Guest = None) -> None:
    """Delete images, the layers that no other image uses, and what commands that were killed have left.

    Parameters
    ----------
    name:
        The name of an image.
    names:
        Further images.
    guest:
        The guest of the image, if images of this name exist for both guests.
    """
    store = ImageStore(find_home())
    sweep(find_home())
    for one in (name, *names):
        image = store.find(one, guest or "")
        freed = store.remove(one, guest or "")
        Snapshots(find_home()).delete_all(one, image.guest)
        print(f"deleted {one}, {size_text(freed)} freed")
