"""``drumhead package new``, ``build`` and ``test``: packages from recipes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from drumhead.cli.flags import Json
from drumhead.cli.output import notice, print_json, print_table, progress
from drumhead.cli.package.demo import run_demo
from drumhead.cli.package.store import print_packages
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.home import find_home
from drumhead.image.package_project import package_project
from drumhead.image.store import ImageStore
from drumhead.manifest.project import read_project
from drumhead.package.build import build_package
from drumhead.package.new import write_recipe
from drumhead.package.recipe import find_recipe, known_recipes, read_recipe
from drumhead.package.store import PackageStore

Project = Annotated[Path, Parameter(name=["--project", "-C"])]


async def build_command(
    *names: str, recipe: Path | None = None, project: Project | None = None, json: Json = False
) -> None:
    """Build a package of the project in this directory, or packages from recipes and current Debian packages.

    Every signature and digest of Debian is verified.

    Parameters
    ----------
    names:
        Recipes that come with drumhead; without a name and outside a project, all of these recipes.
    recipe:
        A file with a recipe of your own.
    project:
        The directory of a project, which becomes a package that other projects can require.
    json:
        Print the records of the packages.
    """
    home = find_home()
    if project is None and not names and recipe is None:
        project = await asyncio.to_thread(_project_here)
    if project is not None:
        await _build_project(project, names, recipe, json=json)
        return
    recipes = [find_recipe(name) for name in names]
    recipes += [await asyncio.to_thread(read_recipe, recipe)] if recipe else []
    # Until a package has its record, another command could remove its blobs.
    with progress("building") as report, ImageStore(home).using():
        built = [
            await build_package(home, PackageStore(home), one, report) for one in recipes or known_recipes().values()
        ]
    print_packages(built, json=json)


def _project_here() -> Path | None:
    return Path() if Path("meta/package.yaml").is_file() else None


async def _build_project(project: Path, names: tuple[str, ...], recipe: Path | None, *, json: bool) -> None:
    if names or recipe:
        raise DrumheadError(ErrorCode.USAGE, "build either a project (--project) or recipes, not both")
    home = find_home()
    with progress("building") as report, ImageStore(home).using():
        built, notices = await package_project(home, await asyncio.to_thread(read_project, project), report)
    for text in notices:
        notice(text)
    print_packages([built], json=json)


async def test_command(*names: str, recipe: Path | None = None, json: Json = False) -> int:  # noqa: PT028 - a command
    """Boot the demo of each package and compare its output with the expected output.

    Parameters
    ----------
    names:
        The packages; without a name, all that have a recipe.
    recipe:
        A file with a recipe of your own, whose package has been built.
    json:
        Print the outcomes as JSON.
    """
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


async def new_command(name: str, /, *, debian: str = "", output: Path | None = None) -> None:
    """Write a recipe for a Debian package, with a comment on each key, as a start for a package of your own.

    Parameters
    ----------
    name:
        The name of the new package.
    debian:
        The Debian package to take files from; by default the one with the same name.
    output:
        The file to write; by default NAME.yaml.
    """
    file = output or Path(f"{name.replace('/', '-')}.yaml")
    with progress("looking up") as report:
        used = await write_recipe(find_home(), name, debian or name, file, report)
    why = f", for {used}, because {debian or name} has no programs but scripts and links"
    source = why if used != (debian or name) else ""
    print(f"wrote {file}{source}; edit it, then: drumhead package build --recipe {file}")
