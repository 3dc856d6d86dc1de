"""``drumhead package search``, ``pull`` and ``push``: packages on remotes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from drumhead.cli.flags import Json
from drumhead.cli.output import notice, progress
from drumhead.cli.package.store import print_packages
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.image.store import ImageStore
from drumhead.package.names import resolve_names
from drumhead.package.remote.http_directory import write_directory
from drumhead.package.remote.remotes import find_remote, pull_package, push_package
from drumhead.package.search import search
from drumhead.package.signing import sign
from drumhead.package.store import PackageStore, parse_ref


async def search_command(name: str = "", /, *, json: Json = False) -> None:
    """Search remotes, the local store and the recipes. A part of a name is enough.

    Parameters
    ----------
    name:
        A part of the name of a package; old names work.
    json:
        Print JSON for programs.
    """
    found, notices = await search(find_home(), name)
    for text in notices:
        notice(text)
    print_packages(found, json=json)


async def pull_command(name: str, /, *, remote: str = "", json: Json = False) -> None:
    """Fetch a package from a remote into the local store.

    Parameters
    ----------
    name:
        The package, NAME or NAME@VERSION; old names work.
    remote:
        The remote; by default the first that has the package.
    json:
        Print the record of the package.
    """
    home = find_home()
    refs, notices = resolve_names([name])
    for text in notices:
        notice(text)
    with progress("pulling") as report, ImageStore(home).using():  # as `package build` does
        for ref in refs:
            chosen = find_remote(home, remote) if remote else None
            package = await pull_package(home, PackageStore(home), ref, report, remote=chosen)
            if package is None:
                raise DrumheadError(
                    ErrorCode.NOT_FOUND, f"no remote has {name}; try `drumhead package build {ref.name}`"
                )
            print_packages([package], json=json)


async def push_command(name: str, /, *, remote: str = "", to: Path | None = None) -> None:
    """Send a stored package to a remote.

    Parameters
    ----------
    name:
        The package, NAME or NAME@VERSION.
    remote:
        The remote; by default the only one.
    to:
        A directory to write to instead, which an HTTP server can serve as a remote.
    """
    home = find_home()
    store, ref = PackageStore(home), parse_ref(name)
    if to is not None:
        package = sign(home, await asyncio.to_thread(store.pack, store.find(ref)))
        await write_directory(to, [package], store.blobs)
    else:
        with progress("pushing") as report:
            package = await push_package(home, store, ref, remote, report)
    print(f"pushed {package.name} {package.version} sha256:{package.archive}")
