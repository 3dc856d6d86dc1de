"""``drumhead image push`` and ``pull``."""

from __future__ import annotations

from drumhead.cli.flags import Guest, Json
from drumhead.cli.output import print_json, progress, size_text
from drumhead.home import find_home
from drumhead.image.store import facts
from drumhead.image.transfer import pull_image, push_image
from drumhead.package.remote.remotes import find_remote


async def push_command(name: str, /, *, tag: str = "", remote: str = "", guest: Guest = None) -> None:
    """Send an image to a registry. Layers that the registry already has are not sent again.

    Parameters
    ----------
    name:
        The name of the image.
    tag:
        The tag in the registry; by default the version of the image, with -osv appended for OSv.
    remote:
        The remote; by default the only one.
    guest:
        The guest of the image, if images of this name exist for both guests; by default linux.
    """
    home = find_home()
    with progress("pushing") as report:
        reference, digest = await push_image(home, name, find_remote(home, remote), tag, report, guest=guest or "")
    print(f"pushed {reference} {digest}")


async def pull_command(name: str, reference: str = "", /, *, remote: str = "", json: Json = False) -> None:
    """Fetch an image from a registry and verify every blob. The image runs without its packages and project.

    Parameters
    ----------
    name:
        The name of the image.
    reference:
        The tag in the registry, by default latest or else the newest; or the digest sha256:… that push printed.
    remote:
        The remote; by default the only one.
    json:
        Print what `drumhead info --json` prints.
    """
    home = find_home()
    with progress("pulling") as report:
        about = facts(await pull_image(home, name, find_remote(home, remote), reference, report))
    if json:
        print_json(about)
    else:
        print(f"pulled {about.image} for {about.guest}: {len(about.layers)} layers, {size_text(about.disk_size)}")
