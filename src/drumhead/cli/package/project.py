"""``drumhead package init``, ``compose`` and ``collect``: commands for projects."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from drumhead.cli.flags import ComposeFlags, Json
from drumhead.cli.output import notice, print_json, progress, size_text
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.image.collect import collect
from drumhead.image.compose import compose
from drumhead.image.inputs import ComposeOptions
from drumhead.image.store import facts
from drumhead.machine.spec import options
from drumhead.manifest.init import init_project
from drumhead.manifest.project import read_project

if TYPE_CHECKING:
    from drumhead.image.compose import Composition

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
    """Write meta/package.yaml into a project and, with --runtime, also meta/run.yaml.

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
    for file in init_project(
        path, name=name, title=title, author=author, version=version, require=require, runtime=runtime
    ):
        print(f"wrote {file}")


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
    if flags.fs not in {"", "squashfs", "erofs", "rofs"}:
        raise DrumheadError(ErrorCode.USAGE, f"--fs {flags.fs}: the file systems are squashfs, erofs and rofs")
    return ComposeOptions(
        guest=flags.guest,
        kernel=flags.kernel,
        filesystem=flags.fs or None,  # type: ignore[arg-type]  # one of the three, as just checked
        overlay_size=options.read_disk_size(flags.size) if flags.size else 0,
        run=flags.run,
        env=options.read_variables(flags.env),
        require=flags.require,
        update=flags.update,
    )


def _print_composition(made: Composition, *, update: bool) -> None:
    image, about = made.image, facts(made.image)
    if update and made.changes is not None:
        for change in made.changes:
            print(f"{change.what}: {change.why}")
        if not made.changes:
            print("nothing changed")
    layers = "1 layer" if len(image.layers) == 1 else f"{len(image.layers)} layers"
    print(
        f"Composed {image.name}: {made.files} files in {layers} ({made.reused} kept), "
        f"{size_text(about.disk_size)}, {made.seconds:.1f} s"
    )
    default = image.commands.get(image.default)
    print(f"Command line set to: {' '.join(default.argv)!r}" if default else "Command line set to: ''")


async def collect_command(target: Path = Path("mpm-pkg"), /, *, project: Project = Path()) -> None:
    """Write the files that an image of the project would hold into a directory.

    Parameters
    ----------
    target:
        The directory, relative to the project; it must be empty or missing.
    project:
        The directory of the project.
    """
    place = target if target.is_absolute() else project / target
    with progress("collecting") as report:
        count, notices = await collect(find_home(), await asyncio.to_thread(read_project, project), place, report)
    for text in notices:
        notice(text)
    print(f"{count} files in {place}")
