"""Compose a project and its packages into an image: gather inputs, build layers, check them, store the image.

Anything that was built from the same inputs before is reused.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.changes import Change, compare
from drumhead.image.checks.arguments import check_arguments
from drumhead.image.checks.locales import locale_notices
from drumhead.image.checks.modules import check_warm
from drumhead.image.checks.programs import (
    check_directories,
    check_findings,
    check_programs,
    missing_notices,
    visible_findings,
)
from drumhead.image.inputs import (
    ComposeInputs,
    ComposeOptions,
    choose_guest,
    choose_kernel,
    find_kernel,
    find_library_pool,
    gather_inputs,
)
from drumhead.image.kernel import build_kernel
from drumhead.image.layers.builder import LayerBuilder, LayerStack
from drumhead.image.layers.plan import in_order
from drumhead.image.layers.store import LayerStore
from drumhead.image.store import ImageStore, check_image_name
from drumhead.image.timezones import PACKAGE as TZDATA
from drumhead.image.timezones import check_zones, has_zones
from drumhead.package.names import gather_packages
from drumhead.package.records import PackageRef
from drumhead.package.store import PackageStore
from drumhead.python.syntax_scan import cached_scans
from drumhead.records import Image, shared_circumstances
from drumhead.report import silent

if TYPE_CHECKING:
    from drumhead.guest.contract import Guest
    from drumhead.home import Home
    from drumhead.manifest.records import Project
    from drumhead.records import GuestName, Kernel, Layer
    from drumhead.report import Report


class Composition(msgspec.Struct, frozen=True, kw_only=True):
    """The result of composing. `digest` identifies the image's exact contents.

    `changes` is None if there was no image of that name before. `reused` counts the layers that were already stored;
    `seconds` is the duration.
    """

    image: Image
    digest: str
    changes: tuple[Change, ...] | None
    notices: tuple[str, ...]
    reused: int
    files: int
    seconds: float


async def compose(
    home: Home, project: Project, name: str, options: ComposeOptions, report: Report = silent
) -> Composition:
    """Compose the image `name` of `project`. An existing image of that name stays until the new one is complete.

    Raises USAGE (the name), MANIFEST, NOT_FOUND (a package), INCOMPLETE (a missing library or program), UNSUPPORTED,
    HOST_TOOL, REMOTE.
    """
    started = time.monotonic()
    check_image_name(name)
    images, guest = ImageStore(home), choose_guest(project, options)
    previous = _find_previous(images, name, guest.name)
    with images.using():
        # On a new host, compressing the kernel on one processor takes as long as everything else on another.
        steps = (
            asyncio.create_task(_build_kernel(home, guest, choose_kernel(project, guest, options), report)),
            asyncio.create_task(_build_layers(home, project, options, report)),
        )
        try:
            (kernel, kernel_notices), (inputs, stack, store) = await asyncio.gather(*steps)
        finally:
            for step in steps:
                step.cancel()
            await asyncio.gather(*steps, return_exceptions=True)
        layers = await asyncio.to_thread(_with_root, store, stack)
        image = _image(name, project, inputs, kernel, layers, overlay_size=options.overlay_size)
        digest = images.put(image)
    return Composition(
        image=image,
        digest=digest,
        changes=tuple(compare(previous, image, store)) if previous else None,
        notices=(*inputs.notices, *kernel_notices, *stack.notices),
        reused=sum(stored.reused for stored in stack.layers),
        files=sum(layer.files for layer in image.layers),
        seconds=time.monotonic() - started,
    )


async def _build_kernel(home: Home, guest: Guest, ref: PackageRef, report: Report) -> tuple[Kernel, list[str]]:
    """Return the image's kernel, and notices."""
    package, notices = await find_kernel(home, ref, report)
    return await asyncio.to_thread(build_kernel, home, PackageStore(home), guest, package), notices


async def _build_layers(
    home: Home, project: Project, options: ComposeOptions, report: Report
) -> tuple[ComposeInputs, LayerStack, LayerStore]:
    """Build every layer except a root layer, and check that the commands can start.

    The notes of an error are the notices until then.
    """
    inputs = await gather_inputs(home, project, options, report)
    store = LayerStore(home, inputs.filesystem, report, inputs.guest)
    builder = LayerBuilder(home, PackageStore(home), store)
    told = list(inputs.notices)
    try:
        stack = await asyncio.to_thread(builder.build, project, inputs, trust=options.update)
        told += stack.notices
        await _complete(home, builder, stack, report)
        stack.notices += await asyncio.to_thread(_check, home, project, inputs, store, stack)
    except DrumheadError as error:
        # A program is often missing because of what they say, such as a lock that is not read.
        for text in told:
            error.add_note(text)
        raise
    return inputs, stack, store


async def _complete(home: Home, builder: LayerBuilder, stack: LayerStack, report: Report) -> None:
    """Add the libraries and the time zones that the other layers need."""
    if stack.missing:
        pool, notices = await find_library_pool(home, report)
        stack.notices += notices
        if pool:
            await asyncio.to_thread(builder.add_libraries, stack, pool)
    users = sorted({user for stored in stack.layers for user in stored.record.zone_users or ()})
    if users and not has_zones(stack.index):
        zones, more = await gather_packages(home, PackageStore(home), [PackageRef(name=TZDATA)], report)
        await asyncio.to_thread(builder.add_packages, stack, zones)
        stack.notices += [f"{TZDATA} was added for the time zones of {', '.join(users)}", *more]
    stack.layers = in_order(stack.layers)


def _image(
    name: str, project: Project, inputs: ComposeInputs, kernel: Kernel, layers: tuple[Layer, ...], *, overlay_size: int
) -> Image:
    return Image(
        name=name,
        title=project.package.title,
        version=project.package.version,
        guest=inputs.guest.name,
        kernel=kernel,
        layers=layers,
        commands=inputs.commands,
        default=inputs.default,
        overlay_size=overlay_size,
        warm_modules=project.run.warm if project.run and project.run.warm else msgspec.UNSET,
    )


def _check(home: Home, project: Project, inputs: ComposeInputs, store: LayerStore, stack: LayerStack) -> list[str]:
    """Check that every config set can start. Return notices. Raises INCOMPLETE, UNSUPPORTED."""
    index, commands = stack.index, inputs.commands
    has_modes = "rofs" not in inputs.guest.filesystems
    programs = check_programs(index, stack.application, commands, stack.missing, has_modes=has_modes)
    check_directories(index, commands)
    check_arguments(index, programs)
    check_zones(index, commands)
    check_warm(index, project.run.warm if project.run else (), shared_circumstances(commands))
    findings = visible_findings((stored.record.index, store.findings(stored.record)) for stored in stack.layers)
    cache = home.cache / "syntax-scans" / f"{hashlib.sha256(os.fsencode(project.root)).hexdigest()}.json"
    with cached_scans(cache):
        notices = check_findings(inputs.guest, findings, stack.application, programs)
    return [*missing_notices(stack.missing), *locale_notices(index, commands), *notices]


def _with_root(store: LayerStore, stack: LayerStack) -> tuple[Layer, ...]:
    """Return the layers of the image, with a root layer for a guest that has no overlay."""
    layers = [stored.layer for stored in stack.layers]
    return (*layers, store.root(layers)) if store.filesystem == "rofs" else tuple(layers)


def _find_previous(images: ImageStore, name: str, guest: GuestName) -> Image | None:
    try:
        return images.find(name, guest)
    except DrumheadError as error:
        if error.code in {ErrorCode.NOT_FOUND, ErrorCode.UNVERIFIED}:
            return None
        raise
