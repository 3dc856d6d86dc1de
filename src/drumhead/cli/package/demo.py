"""Run the demos of recipes: compose each demo into an image, boot it, and compare its output."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.compose import compose
from drumhead.image.inputs import ComposeOptions
from drumhead.image.store import ImageStore
from drumhead.machine.attach import run_to_end
from drumhead.machine.records import InstanceSpec
from drumhead.manifest.records import PackageManifest, Project
from drumhead.package.records import PackageRef
from drumhead.package.store import PackageStore
from drumhead.records import Command

if TYPE_CHECKING:
    from drumhead.home import Home
    from drumhead.package.records import Recipe
    from drumhead.report import Report

TIME_LIMIT = 120.0
"""Seconds that a demo may take; software emulation boots in about 5 s."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a demo. `verdict` is ``passed`` or describes the difference."""

    package: str
    passed: bool
    verdict: str


async def run_demo(home: Home, recipe: Recipe, report: Report) -> Outcome:
    """Boot the demo of `recipe` and compare its output.

    Raises USAGE if there is no demo, and the errors of composing and running.
    """
    demo = recipe.demo
    if demo is None:
        raise DrumheadError(ErrorCode.USAGE, f"recipe {recipe.name} has no demo")
    name = f"demo-{recipe.name}"
    with tempfile.TemporaryDirectory() as scratch:
        for path, text in demo.files.items():
            file = Path(scratch) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        wanted = () if recipe.kind in {"kernel", "libraries"} else (recipe.name,)
        manifest = PackageManifest(name=name, title=name, author="drumhead", require=(*wanted, *demo.require))
        project = Project(root=scratch, package=manifest, run=None)
        await compose(home, project, name, ComposeOptions(), report)
        try:
            spec = InstanceSpec(name=name, image=name, command=Command(argv=demo.command), memory=demo.memory)
            ended = await run_to_end(home, spec, time_limit=TIME_LIMIT)
        finally:
            await asyncio.to_thread(ImageStore(home).remove, name)
    version = PackageStore(home).find(PackageRef(name=recipe.name)).version
    expected = demo.output.replace("{version}", version)
    printed = ended.output.decode(errors="replace").strip()
    if ended.status != 0 or printed != expected:
        verdict = f"ended with {ended.status} and printed {printed!r}, expected {expected!r}"
        return Outcome(package=recipe.name, passed=False, verdict=verdict)
    return Outcome(package=recipe.name, passed=True, verdict="passed")
