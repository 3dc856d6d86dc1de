"""Recipes' demos: each is composed into an image of its own, booted, and what it prints is compared."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.compose import ComposeOptions, compose
from drumhead.image.store import ImageStore
from drumhead.machine.instances import Instances
from drumhead.machine.launch import start_machine
from drumhead.machine.records import InstanceSpec
from drumhead.manifest.records import Command, PackageManifest, Project
from drumhead.package.records import PackageRef
from drumhead.package.store import PackageStore

if TYPE_CHECKING:
    from drumhead.home import Home
    from drumhead.package.records import Demo, Recipe
    from drumhead.report import Report

TIME_LIMIT = 120.0
"""Seconds that a demo may take; software emulation boots in about five."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a demo went. `verdict` is ``passed`` or says what was otherwise."""

    package: str
    passed: bool
    verdict: str


async def run_demo(home: Home, recipe: Recipe, report: Report) -> Outcome:
    """Boot the demo of `recipe` and compare. Raises USAGE without one, and what composing and starting raise."""
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
            status, output = await _boot(home, name, demo)
        finally:
            await asyncio.to_thread(ImageStore(home).remove, name)
    version = PackageStore(home).find(PackageRef(name=recipe.name)).version
    expected = demo.output.replace("{version}", version)
    if status != 0 or output.strip() != expected:
        verdict = f"ended with {status} and printed {output.strip()!r}, expected {expected!r}"
        return Outcome(package=recipe.name, passed=False, verdict=verdict)
    return Outcome(package=recipe.name, passed=True, verdict="passed")


async def _boot(home: Home, name: str, demo: Demo) -> tuple[int | None, str]:
    """The exit status of the demo's command, and what it printed."""
    instances = Instances(home)
    spec = InstanceSpec(name=name, image=name, command=Command(argv=demo.command))
    started = await start_machine(home, spec, attached=True)
    try:
        async with asyncio.timeout(TIME_LIMIT):
            await started.process.wait()
    except TimeoutError:
        started.process.kill()
        await started.process.wait()
    try:
        log = instances.directory(name) / "log"
        output = await asyncio.to_thread(log.read_text) if await asyncio.to_thread(log.exists) else ""
        return instances.read(name).exit_status, output
    finally:
        await asyncio.to_thread(instances.delete, name)
