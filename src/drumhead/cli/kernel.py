"""``drumhead kernel …``: kernels that the user added or that recipes built."""

from __future__ import annotations

from drumhead.cli.flags import Json
from drumhead.cli.output import print_json, print_table, progress, size_text
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.image.store import ImageStore
from drumhead.package.osv.kernel import OSV, add_kernel, find_osv
from drumhead.package.records import Origin
from drumhead.package.store import PackageStore, parse_ref


async def add_command(*files: str, digest: tuple[str, ...] = (), json: Json = False) -> None:
    """Add an OSv kernel for images with `guest: osv`.

    Parameters
    ----------
    files:
        Paths or URLs of loader-stripped.elf and, if you have them, loader.img (for exported disks) and libext.so with
        the library that it needs (for volumes). Files are recognised by their content, not by their name.
    digest:
        The digest of a file, sha256:HEX; repeatable, and required for each URL.
    json:
        Print the record of the package.
    """
    if not files:
        raise DrumheadError(ErrorCode.USAGE, "give at least one file: drumhead kernel add loader-stripped.elf")
    home = find_home()
    with progress("adding") as report, ImageStore(home).using():  # as `package build` does
        package = await add_kernel(PackageStore(home), files, digest, report)
    if json:
        print_json(package)
        return
    print(f"added {package.name}@{package.version}")
    _print_files(package.origins)


def list_command(*, json: Json = False) -> None:
    """List the kernels of the local store."""
    kernels = [package for package in PackageStore(find_home()).list() if package.kind == "kernel"]
    if json:
        print_json(kernels)
        return
    rows = [(one.name, one.version, size_text(one.archive_size), one.description) for one in kernels]
    print_table(("Name", "Version", "Size", "Description"), rows)


def info_command(name: str = "osv", /, *, json: Json = False) -> None:
    """Show a kernel and the files that it was made from.

    Parameters
    ----------
    name:
        The kernel: osv, osv@VERSION or linux; by default the newest version.
    json:
        Print JSON for programs.
    """
    ref, store = parse_ref(name), PackageStore(find_home())
    package = find_osv(store, ref.version) if ref.name == OSV else store.find(ref)
    if package.kind != "kernel":
        raise DrumheadError(ErrorCode.USAGE, f"{name} is not a kernel; `drumhead package describe {name}` describes it")
    if json:
        print_json(package)
        return
    for key, value in (
        ("Name", package.name),
        ("Version", package.version),
        ("Description", package.description),
        ("Archive", f"sha256:{package.archive} ({size_text(package.archive_size)})"),
    ):
        print(f"{key + ':':13} {value}")
    _print_files(package.origins)


def _print_files(origins: tuple[Origin, ...]) -> None:
    for origin in origins:
        print(f"    {origin.name}: sha256:{origin.sha256}")
