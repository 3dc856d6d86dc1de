"""``drumhead package list`` and ``describe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.cli.flags import Json
from drumhead.cli.output import print_json, print_table, size_text
from drumhead.home import find_home
from drumhead.package.store import PackageStore, parse_ref

if TYPE_CHECKING:
    from drumhead.package.records import Package


def list_command(*, json: Json = False) -> None:
    """List the packages of the local store."""
    print_packages(PackageStore(find_home()).list(), json=json)


def print_packages(packages: list[Package], *, json: bool) -> None:
    """Print packages as a table, or as JSON."""
    if json:
        print_json(packages)
        return
    rows = [(package.name, package.description, package.version, package.created) for package in packages]
    print_table(("Name", "Description", "Version", "Created"), rows)


async def describe_command(name: str, /, *, json: Json = False) -> None:
    """Show a package, the Debian packages that it was made from and the files that it holds.

    Parameters
    ----------
    name:
        The package, NAME or NAME@VERSION.
    json:
        Print JSON for programs.
    """
    store = PackageStore(find_home())
    package = store.find(parse_ref(name))
    files = [f"/{path}" for path, entry in store.tree(package) if entry.kind != "directory"]
    if json:
        print_json({"package": package, "files": files})
        return
    for key, value in (
        ("Name", package.name),
        ("Version", package.version),
        ("Kind", package.kind),
        ("Description", package.description),
        ("Created", package.created),
        ("Archive", f"sha256:{package.archive} ({size_text(package.archive_size)})"),
        *((f"As {layer.filesystem}", f"sha256:{layer.digest} ({size_text(layer.size)})") for layer in package.layers),
        ("Unpacked", size_text(package.unpacked_size)),
        ("Requires", ", ".join(package.requires) or "nothing"),
        ("Config sets", ", ".join(package.config_sets) or "none"),
        ("Made from", ", ".join(f"{origin.name} {origin.version}" for origin in package.origins)),
        ("Files", str(len(files))),
    ):
        print(f"{key + ':':13} {value}")
    print("\n".join(files))
