"""Composing: a project and its packages become an image. What was made before from the same inputs is used again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.blobs import Blobs
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest, require
from drumhead.image.changes import Change, compare
from drumhead.image.guest_program import compile_program
from drumhead.image.layer_plan import Contents
from drumhead.image.layers import Layers
from drumhead.image.store import ImageStore
from drumhead.manifest.run_yaml import REQUIRES, parse_command
from drumhead.package.names import gather_packages, resolve_names
from drumhead.package.osv.kernel import OSV, find_osv
from drumhead.package.records import PackageRef
from drumhead.package.store import PackageStore, parse_ref
from drumhead.records import Image, Kernel
from drumhead.report import silent

if TYPE_CHECKING:
    from drumhead.guest.contract import Guest
    from drumhead.home import Home
    from drumhead.manifest.records import Project
    from drumhead.package.records import Package
    from drumhead.records import Command, Filesystem, GuestName
    from drumhead.report import Report

LIBRARY_POOL = "libraries"
KERNEL = "linux"
"""The package that holds Linux's kernel."""


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line adds to the manifest.

    `guest` replaces the manifest's, and `kernel` (NAME@VERSION) its kernel. `run` is a config set or a command line.
    `overlay_size` is in bytes; 0 keeps a machine's writes in memory. With `scratch` the image is only looked at, never
    booted: any file system will do.
    """

    guest: GuestName | None = None
    kernel: str = ""
    scratch: bool = False
    filesystem: Filesystem | None = None
    overlay_size: int = 0
    run: str = ""
    env: dict[str, str] = {}
    require: tuple[str, ...] = ()
    update: bool = False


class Composition(msgspec.Struct, frozen=True, kw_only=True):
    """What composing did. `digest` names the image's exact contents; `changes` is None when there was no image before.

    `reused` counts the layers that were there already; `seconds` is the time it took.
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
    """Make the image `name` of `project`, or make it anew. The old image stays until the new one is complete.

    Raises MANIFEST, NOT_FOUND (a package), INCOMPLETE (a library or program that is nowhere), HOST_TOOL, REMOTE.
    """
    started = time.monotonic()
    store, images = PackageStore(home), ImageStore(home)
    guest = find_guest(options.guest or project.package.guest)
    filesystem = _choose_filesystem(guest, options)
    old = _find_old(images, name, guest.name)
    runtime = REQUIRES[project.run.runtime] if project.run else ()
    refs, notices = resolve_names([*runtime, *project.package.require, *options.require])
    with images.using():
        named = project.package.kernel if guest.name == project.package.guest else ""
        kernel = await _find_kernel(home, store, guest, options.kernel or named, report, notices)
        packages, more = await gather_packages(home, store, refs, report)
        packages = [package for package in packages if package.kind not in {"kernel", "libraries"}]
        layers = Layers(home, filesystem, report, guest)
        loop = asyncio.get_running_loop()

        def find_pool() -> Package | None:
            gathering = gather_packages(home, store, [PackageRef(name=LIBRARY_POOL)], report)
            try:
                found, _ = asyncio.run_coroutine_threadsafe(gathering, loop).result()
            except DrumheadError as error:
                more.append(f"libraries that no package has were not looked for: {error.message}")
                return None
            return found[-1]

        contents = Contents(home, store, layers, guest, project, find_pool)
        image, notes, reused = await asyncio.to_thread(_assemble, contents, packages, kernel, name, options)
        digest = images.put(image)
    return Composition(
        image=image,
        digest=digest,
        changes=tuple(compare(old, image, layers)) if old else None,
        notices=(*project.notices, *notices, *more, *notes),
        reused=reused,
        files=sum(layer.files for layer in image.layers),
        seconds=time.monotonic() - started,
    )


def _choose_filesystem(guest: Guest, options: ComposeOptions) -> Filesystem:
    """The layers' file system. Raises USAGE for one that the guest does not read, UNSUPPORTED for a disk it has not."""
    if options.overlay_size:
        require(guest, "overlay")
    filesystem = options.filesystem or guest.filesystems[0]
    if filesystem not in guest.filesystems and not options.scratch:
        raise DrumheadError(
            ErrorCode.USAGE, f"guest {guest.name} does not read {filesystem}; it reads {', '.join(guest.filesystems)}"
        )
    return filesystem


async def _find_kernel(
    home: Home, store: PackageStore, guest: Guest, asked: str, report: Report, notices: list[str]
) -> Package:
    """The kernel's package: `asked` (NAME@VERSION) or the newest. Raises NOT_FOUND, USAGE for another guest's."""
    wanted = OSV if guest.name == OSV else KERNEL
    ref = parse_ref(asked or wanted)
    if ref.name != wanted:
        raise DrumheadError(
            ErrorCode.USAGE, f"{asked} is no kernel of guest {guest.name}; its kernels are {wanted}@VERSION"
        )
    if guest.name == OSV:
        return find_osv(store, ref.version)
    found, more = await gather_packages(home, store, [ref], report)
    notices += more
    return found[-1]


def _assemble(
    contents: Contents, packages: list[Package], kernel: Package, name: str, options: ComposeOptions
) -> tuple[Image, list[str], int]:
    project = contents.project
    commands = resolve_commands(project, packages)
    default = project.run.default if project.run else ""
    if options.run:
        default = options.run if options.run in commands else "run"
        if default == "run" and "run" not in commands:
            commands["run"] = parse_command(options.run)
    if options.env:
        commands = {
            key: msgspec.structs.replace(command, env=command.env | options.env) for key, command in commands.items()
        }
    layers = contents.compose(packages, commands, default, kernel=kernel, trust=options.update)
    return (
        Image(
            name=name,
            title=project.package.title,
            version=project.package.version,
            guest=contents.guest.name,
            kernel=_kernel(contents.home, contents.store, contents.guest, kernel),
            layers=tuple(layers),
            commands=commands,
            default=default,
            overlay_size=options.overlay_size,
        ),
        contents.notices,
        contents.reused,
    )


def resolve_commands(project: Project, packages: list[Package]) -> dict[str, Command]:
    """The project's config sets, inherited ones filled in. Raises MANIFEST for a base that no package has."""
    if project.run is None:
        return {}
    commands = dict(project.run.config_sets)
    for name, base in project.run.bases.items():
        package, _, config_set = base.partition(":")
        refs, _ = resolve_names([package])
        wanted = refs[0].name if refs else package
        offered = {other.name: other.config_sets for other in packages}.get(wanted)
        if offered is None:
            raise DrumheadError(ErrorCode.MANIFEST, f"meta/run.yaml:1: {name}: package {package} is not required")
        if config_set not in offered:
            sets = ", ".join(offered) or "none"
            raise DrumheadError(
                ErrorCode.MANIFEST, f"meta/run.yaml:1: {name}: {wanted} has no config set {config_set}; it has {sets}"
            )
        own, inherited = commands[name], offered[config_set]
        commands[name] = msgspec.structs.replace(inherited, env=inherited.env | own.env, cwd=own.cwd)
    return commands


def _kernel(home: Home, store: PackageStore, guest: Guest, package: Package) -> Kernel:
    """The kernel and initrd of an image, taken from the cache when nothing that decides them changed."""
    blobs = Blobs(home)
    key = hashlib.sha256(f"{package.archive}\0{guest_digest(guest.name)}".encode()).hexdigest()
    file = home.cache / "kernels" / f"{key}.json"
    if file.is_file():
        known = msgspec.json.decode(file.read_bytes(), type=Kernel)
        if all(blobs.path(blob.digest).is_file() for blob in (known.vmlinux, known.initrd) if blob):
            os.utime(file)
            return known
    tree = store.tree(package)
    modules = {path: entry.read() for path, entry in tree if path.startswith("modules/") and entry.kind == "file"}
    initrd = guest.initrd(modules, compile_program(guest.program, home.cache))
    kernel = Kernel(
        package=package.name,
        version=package.version,
        vmlinux=blobs.put(tree["vmlinux.xz"].read()),
        initrd=blobs.put(initrd) if initrd else None,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(kernel))
    return kernel


def guest_digest(name: str) -> str:
    """SHA-256 over the files of a guest's own package: its init program follows from them."""
    state = hashlib.sha256()
    root = Path(str(resources.files("drumhead.guest") / name))
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            state.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return state.hexdigest()


def _find_old(images: ImageStore, name: str, guest: GuestName) -> Image | None:
    try:
        return images.find(name, guest)
    except DrumheadError as error:
        if error.code in {ErrorCode.NOT_FOUND, ErrorCode.UNVERIFIED}:
            return None
        raise
