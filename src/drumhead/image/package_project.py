"""Make a package of a project, for other projects to require: its files, its dependencies and its config sets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.inputs import resolve_commands, resolve_packages
from drumhead.image.layers.builder import LayerBuilder
from drumhead.image.layers.store import LayerStore
from drumhead.package.names import gather_packages
from drumhead.package.recipe import known_recipes
from drumhead.package.records import Package
from drumhead.package.store import PackageStore
from drumhead.report import silent

if TYPE_CHECKING:
    from drumhead.home import Home
    from drumhead.manifest.records import Project
    from drumhead.report import Report


async def package_project(home: Home, project: Project, report: Report = silent) -> tuple[Package, tuple[str, ...]]:
    """Store a package of `project`. Return the package and notices.

    It requires the packages that the project requires. Its config sets have their bases resolved. Raises CONFLICT if
    the name is that of a recipe, MANIFEST, and the errors of ``compose``.
    """
    manifest = project.package
    if manifest.name in known_recipes():
        raise DrumheadError(
            ErrorCode.CONFLICT, f"{manifest.name} is a package of drumhead; choose another name in meta/package.yaml"
        )
    store = PackageStore(home)
    refs, notices = resolve_packages(project)
    found, more = await gather_packages(home, store, refs, report)
    builder = LayerBuilder(home, store, LayerStore(home, "squashfs", report))
    tree, told = await asyncio.to_thread(builder.project_tree, project, found)
    package = Package(
        name=manifest.name,
        version=manifest.version or "0",
        kind="application",
        description=manifest.title,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        archive="",
        archive_size=0,
        unpacked_size=tree.size,
        requires=tuple(f"{ref.name}@{ref.version}" if ref.version else ref.name for ref in refs),
        config_sets=resolve_commands(project, tuple(found)),
    )
    return await asyncio.to_thread(store.add, tree, package), (*project.notices, *notices, *more, *told)
