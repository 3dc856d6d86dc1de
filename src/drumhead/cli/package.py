"""``drumhead package …``: projects and packages."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from drumhead.cli.flags import ComposeFlags, Json
from drumhead.cli.output import notice, print_json, print_table, progress, size_text
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home

if TYPE_CHECKING:
    from drumhead.image.compose import Composition
    from drumhead.image.inputs import ComposeOptions
    from drumhead.package.records import Package

Project = Annotated[Path, Parameter(name=["--project", "-C"])]


def init_command(
    path: Path = Path(),
    /,
    *,
    name: Annotated[str, Parameter(name=["--name", "-n"])] = "",
    title: Annotated[str, Parameter(name=["--title", "-t"])] = "",
    author: Annotated[str, Parameter(name=["--author", "-a"])] = "",
    version: Annotated[str, Parameter(name="--version")] = "",
    require: Annotated[tuple[str, ...], Parameter(name="--require")] = (),
    runtime: Annotated[str, Parameter(name="--runtime")] = "",
) -> None:
    """Write meta/package.yaml into a project, and with --runtime also meta/run.yaml.

    Parameters
    ----------
    path:
        The directory of the project.
    name:
        The name of the package; by default that of the directory.
    title:
        A short title for people.
    author:
        The author.
    version:
        The version of the package.
    require:
        A package that the project needs; repeatable.
    runtime:
        The runtime to write meta/run.yaml for: native, node or python.
    """
    from drumhead.manifest.init import init_project  # noqa: PLC0415 - each command imports what it uses

    for file in init_project(
        path, name=name, title=title, author=author, version=version, require=require, runtime=runtime
    ):
        print(f"wrote {file}")


async def new_command(name: str, /, *, debian: str = "", output: Path | None = None) -> None:
    """Write a recipe for a Debian package, with a comment on each key, to build a package of your own from.

    Parameters
    ----------
    name:
        The name of the new package.
    debian:
        The Debian package to take files from; by default the one of the same name.
    output:
        The file to write; by default NAME.yaml.
    """
    from drumhead.package.new import write_recipe  # noqa: PLC0415

    file = output or Path(f"{name.replace('/', '-')}.yaml")
    with progress("looking up") as report:
        await write_recipe(find_home(), name, debian or name, file, report)
    print(f"wrote {file}; edit it, then: drumhead package build --recipe {file}")


async def compose_command(
    image: str, /, *, project: Project = Path(), flags: ComposeFlags | None = None, json: Json = False
) -> None:
    """Compose a project and the packages that it requires into an image.

    Parameters
    ----------
    image:
        The name of the image; it may have slashes (node-micro/tutorial).
    project:
        The directory of the project.
    json:
        Print what was composed, as JSON.
    """
    from drumhead.image.compose import compose  # noqa: PLC0415
    from drumhead.manifest.project import read_project  # noqa: PLC0415

    flags = flags or ComposeFlags()
    options = _read_options(flags)
    with progress("composing") as report:
        made = await compose(find_home(), await asyncio.to_thread(read_project, project), image, options, report)
    for text in made.notices:
        notice(text)
    if json:
        print_json(made)
    else:
        _print_composition(made, update=flags.update)


def _read_options(flags: ComposeFlags) -> ComposeOptions:
    from drumhead.image.inputs import ComposeOptions  # noqa: PLC0415

    if flags.fs not in {"", "squashfs", "erofs", "rofs"}:
        raise DrumheadError(ErrorCode.USAGE, f"--fs {flags.fs}: the file systems are squashfs, erofs and rofs")
    return ComposeOptions(
        guest=flags.guest,
        kernel=flags.kernel,
        filesystem=flags.fs or None,  # type: ignore[arg-type]  # one of the three, as just checked
        overlay_size=parse_size(flags.size) if flags.size else 0,
        run=flags.run,
        env=parse_environment(flags.env),
        require=flags.require,
        update=flags.update,
    )


def _print_composition(made: Composition, *, update: bool) -> None:
    from drumhead.image.store import facts  # noqa: PLC0415

    image, about = made.image, facts(made.image)
    if update and made.changes is not None:
        for change in made.changes:
            print(f"{change.what}: {change.why}")
        if not made.changes:
            print("nothing changed")
    print(
        f"Composed {image.name}: {made.files} files in {len(image.layers)} layers ({made.reused} kept), "
        f"{size_text(about.disk_size)}, {made.seconds:.1f} s"
    )
    default = image.commands.get(image.default)
    print(f"Command line set to: {' '.join(default.argv)!r}" if default else "Command line set to: ''")


async def collect_command(target: Path = Path("mpm-pkg"), /, *, project: Project = Path()) -> None:
    """Write what an image of the project would hold into a directory.

    Parameters
    ----------
    target:
        The directory, relative to the project; it must be empty or not exist.
    project:
        The directory of the project.
    """
    from drumhead.image.collect import collect  # noqa: PLC0415
    from drumhead.manifest.project import read_project  # noqa: PLC0415

    place = target if target.is_absolute() else project / target
    with progress("collecting") as report:
        count, notices = await collect(find_home(), await asyncio.to_thread(read_project, project), place, report)
    for text in notices:
        notice(text)
    print(f"{count} files in {place}")


def list_command(*, json: Json = False) -> None:
    """List the packages of the local store."""
    from drumhead.package.store import PackageStore  # noqa: PLC0415

    _print_packages(PackageStore(find_home()).list(), json=json)


async def search_command(name: str = "", /, *, json: Json = False) -> None:
    """Search remotes, the local store and the recipes; part of a name is enough.

    Parameters
    ----------
    name:
        A part of the name of a package; old names work.
    json:
        Print JSON for programs.
    """
    from drumhead.package.search import search  # noqa: PLC0415

    found, notices = await search(find_home(), name)
    for text in notices:
        notice(text)
    _print_packages(found, json=json)


def _print_packages(packages: list[Package], *, json: bool) -> None:
    if json:
        print_json(packages)
        return
    rows = [(package.name, package.description, package.version, package.created) for package in packages]
    print_table(("Name", "Description", "Version", "Created"), rows)


async def describe_command(name: str, /, *, json: Json = False) -> None:
    """Show what a package is, where it comes from and which files it holds.

    Parameters
    ----------
    name:
        The package, NAME or NAME@VERSION.
    json:
        Print JSON for programs.
    """
    from drumhead.package.store import PackageStore, parse_ref  # noqa: PLC0415

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


async def build_command(
    *names: str, recipe: Path | None = None, project: Project | None = None, json: Json = False
) -> None:
    """Build a package of the project in this directory, or of recipes and the current Debian packages.

    Every signature and digest of Debian is checked.

    Parameters
    ----------
    names:
        Recipes that come with drumhead; without a name and outside a project, all of them.
    recipe:
        A file with a recipe of your own.
    project:
        The directory of a project, which becomes a package that other projects can require.
    json:
        Print the records of the packages.
    """
    from drumhead.package.build import build_package  # noqa: PLC0415
    from drumhead.package.recipe import find_recipe, known_recipes, read_recipe  # noqa: PLC0415
    from drumhead.package.store import PackageStore  # noqa: PLC0415

    home = find_home()
    if project is None and not names and recipe is None:
        project = await asyncio.to_thread(_project_here)
    if project is not None:
        await _build_project(project, names, recipe, json=json)
        return
    recipes = [find_recipe(name) for name in names]
    recipes += [await asyncio.to_thread(read_recipe, recipe)] if recipe else []
    with progress("building") as report:
        built = [
            await build_package(home, PackageStore(home), one, report) for one in recipes or known_recipes().values()
        ]
    _print_packages(built, json=json)


def _project_here() -> Path | None:
    return Path() if Path("meta/package.yaml").is_file() else None


async def _build_project(project: Path, names: tuple[str, ...], recipe: Path | None, *, json: bool) -> None:
    from drumhead.image.package_project import package_project  # noqa: PLC0415
    from drumhead.manifest.project import read_project  # noqa: PLC0415

    if names or recipe:
        raise DrumheadError(ErrorCode.USAGE, "build either a project (--project) or recipes, not both")
    with progress("building") as report:
        built, notices = await package_project(find_home(), await asyncio.to_thread(read_project, project), report)
    for text in notices:
        notice(text)
    _print_packages([built], json=json)


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
    from drumhead.package.names import resolve_names  # noqa: PLC0415
    from drumhead.package.remote.remotes import find_remote, pull_package  # noqa: PLC0415
    from drumhead.package.store import PackageStore  # noqa: PLC0415

    home = find_home()
    refs, notices = resolve_names([name])
    for text in notices:
        notice(text)
    with progress("pulling") as report:
        for ref in refs:
            chosen = find_remote(home, remote) if remote else None
            package = await pull_package(home, PackageStore(home), ref, report, remote=chosen)
            if package is None:
                raise DrumheadError(
                    ErrorCode.NOT_FOUND, f"no remote has {name}; `drumhead package build {ref.name}` may make it"
                )
            _print_packages([package], json=json)


async def push_command(name: str, /, *, remote: str = "", to: Path | None = None) -> None:
    """Send a stored package to a remote.

    Parameters
    ----------
    name:
        The package, NAME or NAME@VERSION.
    remote:
        The remote; by default the only one.
    to:
        A directory to write instead, which an HTTP server can serve as a remote.
    """
    from drumhead.package.remote.http_directory import write_directory  # noqa: PLC0415
    from drumhead.package.remote.remotes import push_package  # noqa: PLC0415
    from drumhead.package.signing import sign  # noqa: PLC0415
    from drumhead.package.store import PackageStore, parse_ref  # noqa: PLC0415

    home = find_home()
    store, ref = PackageStore(home), parse_ref(name)
    if to is not None:
        package = sign(home, await asyncio.to_thread(store.pack, store.find(ref)))
        await write_directory(to, [package], store.blobs)
    else:
        with progress("pushing") as report:
            package = await push_package(home, store, ref, remote, report)
    print(f"pushed {package.name} {package.version} sha256:{package.archive}")


async def test_command(*names: str, recipe: Path | None = None, json: Json = False) -> int:  # noqa: PT028 - a command
    """Boot the demo of each package and compare what it prints.

    Parameters
    ----------
    names:
        The packages; without a name, all that have a recipe.
    recipe:
        A file with a recipe of your own, whose package was built.
    json:
        Print the outcomes as JSON.
    """
    from drumhead.machine.demo import run_demo  # noqa: PLC0415
    from drumhead.package.recipe import find_recipe, known_recipes, read_recipe  # noqa: PLC0415

    recipes = [find_recipe(name) for name in names]
    recipes += [await asyncio.to_thread(read_recipe, recipe)] if recipe else []
    with progress("testing") as report:
        outcomes = [
            await run_demo(find_home(), one, report)
            for one in recipes or known_recipes().values()
            if one.demo or recipes
        ]
    if json:
        print_json(outcomes)
    else:
        print_table(("Package", "Outcome"), [(outcome.package, outcome.verdict) for outcome in outcomes])
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def parse_size(text: str) -> int:
    """``10G``, ``512M``, ``1.5g``, or bytes. Raises USAGE."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise DrumheadError(ErrorCode.USAGE, f"{text!r} is no size; write 512M or 10G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def parse_environment(words: tuple[str, ...]) -> dict[str, str]:
    """``NAME=value`` words as a mapping. Raises USAGE."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise DrumheadError(ErrorCode.USAGE, f"--env {word!r} must have the form NAME=value")
        found[name] = value
    return found
