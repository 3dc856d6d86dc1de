"""Gather the inputs of an image other than the project's files: guest, kernel, packages and commands."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest, require
from drumhead.image.checks.programs import RUN
from drumhead.image.timezones import PACKAGE as TZDATA
from drumhead.image.timezones import uses_time_zones
from drumhead.manifest.command_line import parse_command
from drumhead.manifest.run_yaml import REQUIRES
from drumhead.node.lock import missing_modules
from drumhead.node.versions import DEFAULT as DEFAULT_NODE
from drumhead.node.versions import RELEASES, choose_node
from drumhead.package.names import gather_packages, resolve_names
from drumhead.package.osv.kernel import OSV, find_osv
from drumhead.package.records import PackageRef
from drumhead.package.store import PackageStore, parse_ref
from drumhead.python.notices import python_notices
from drumhead.records import Filesystem, GuestName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.guest.contract import Guest
    from drumhead.home import Home
    from drumhead.manifest.records import Project
    from drumhead.package.records import Package
    from drumhead.records import Command
    from drumhead.report import Report

LIBRARY_POOL = "libraries"
KERNEL = "linux"
"""The package of the Linux kernel."""


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options that the command line adds to the manifest.

    `guest` replaces the manifest's guest, and `kernel` (NAME@VERSION) its kernel. `run` is a config set or a command
    line. `overlay_size` is in bytes; 0 keeps a machine's writes in memory. An image with `scratch` is only
    inspected and never booted, so it may have any file system. With `update`, project files whose size and times have
    not changed are not read again.
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


@dataclass(frozen=True, kw_only=True)
class ComposeInputs:
    """The inputs of an image other than its kernel. `commands` are its config sets; `default` names one or is empty.

    `kernel_files` is the kernel's package if some of its files belong in the root tree. `notices` are for the user.
    """

    guest: Guest
    filesystem: Filesystem
    kernel_files: Package | None
    packages: tuple[Package, ...]
    commands: dict[str, Command]
    default: str
    notices: tuple[str, ...]

    @property
    def python(self) -> Package | None:
        """The package that holds the Python interpreter, if the image has one."""
        return find_python(self.packages)

    @property
    def node(self) -> Package | None:
        """The package that holds Node.js, if the image has one."""
        return find_node(self.packages)


def find_node(packages: Iterable[Package]) -> Package | None:
    """Return the package that holds Node.js, or None."""
    return next((package for package in packages if package.name in RELEASES), None)


def resolve_packages(project: Project, more: tuple[str, ...] = ()) -> tuple[list[PackageRef], list[str]]:
    """Return the packages that a project needs (for its runtime, from its manifest, and `more`), and notices.

    A project gets one version of Node.js: the one in the manifest, or else the one that ``engines`` asks for.
    Raises MANIFEST.
    """
    required, notices = resolve_names([*project.package.require, *more])
    names = [ref.name for ref in required]
    runtime = REQUIRES[project.run.runtime] if project.run else ()
    implied = [name for name in runtime if name not in names and not (name == DEFAULT_NODE and RELEASES.keys() & names)]
    first = [ref for ref in required if ref.name in runtime]
    refs = [*(PackageRef(name=name) for name in implied), *first, *(ref for ref in required if ref not in first)]
    named = [ref for ref in refs if ref.name in RELEASES]
    if len(named) > 1:
        both = " and ".join(ref.name for ref in named)
        raise DrumheadError(ErrorCode.MANIFEST, f"meta/package.yaml:1: require one version of Node.js, not {both}")
    if named and not named[0].version:
        chosen, notice = choose_node(Path(project.root), named[0].name)
        refs = [PackageRef(name=chosen) if ref == named[0] else ref for ref in refs]
        notices += [notice] if notice else []
    return refs, [*notices, *_missing_dependencies(project, {ref.name for ref in refs})]


def _missing_dependencies(project: Project, names: set[str]) -> list[str]:
    """Return notices for dependencies that nothing installs, and for a project that needs another Python."""
    node = missing_modules(Path(project.root)) if names & RELEASES.keys() else ""
    return [*([node] if node else []), *(python_notices(project) if "python" in names else [])]


def find_python(packages: Iterable[Package]) -> Package | None:
    """Return the package that holds the Python interpreter, or None."""
    return next((package for package in packages if package.name == "python"), None)


async def gather_inputs(home: Home, project: Project, options: ComposeOptions, report: Report) -> ComposeInputs:
    """Resolve the project's requirements. Pull or build packages that the local store does not have.

    ``find_kernel`` finds the Linux kernel separately, because it takes longest to build and has no files in the root
    tree. Raises NOT_FOUND for a package, MANIFEST, USAGE, UNSUPPORTED, REMOTE, HOST_TOOL.
    """
    store = PackageStore(home)
    guest = choose_guest(project, options)
    filesystem = _choose_filesystem(guest, options)
    refs, notices = resolve_packages(project, options.require)
    kernel = choose_kernel(project, guest, options)
    found, package_notices = await gather_packages(home, store, refs, report)
    packages = tuple(package for package in found if package.kind not in {"kernel", "libraries"})
    commands, default = choose_commands(project, packages, options)
    if await asyncio.to_thread(uses_time_zones, project, commands) and TZDATA not in [one.name for one in packages]:
        zones, zone_notices = await gather_packages(home, store, [PackageRef(name=TZDATA)], report)
        packages, notices = (
            (*packages, *zones),
            [*notices, f"{TZDATA} was added, because the project uses time zones", *zone_notices],
        )
    return ComposeInputs(
        guest=guest,
        filesystem=filesystem,
        kernel_files=find_osv(store, kernel.version) if guest.name == OSV else None,
        packages=packages,
        commands=commands,
        default=default,
        notices=(*project.notices, *notices, *package_notices),
    )


async def find_library_pool(home: Home, report: Report) -> tuple[Package | None, tuple[str, ...]]:
    """Return the package of common libraries, or None with a notice if it is not available."""
    try:
        found, _ = await gather_packages(home, PackageStore(home), [PackageRef(name=LIBRARY_POOL)], report)
    except DrumheadError as error:
        return None, (f"the package of common libraries is not available: {error.message}",)
    return found[-1], ()


def choose_guest(project: Project, options: ComposeOptions) -> Guest:
    """Return the guest that the options or the manifest name. Raises UNSUPPORTED."""
    return find_guest(options.guest or project.package.guest)


def _choose_filesystem(guest: Guest, options: ComposeOptions) -> Filesystem:
    """Return the layers' file system. Raises USAGE if the guest cannot read it, UNSUPPORTED if it has no overlay."""
    if options.overlay_size:
        require(guest, "overlay")
    filesystem = options.filesystem or guest.filesystems[0]
    if filesystem not in guest.filesystems and not options.scratch:
        raise DrumheadError(
            ErrorCode.USAGE, f"guest {guest.name} does not read {filesystem}; it reads {', '.join(guest.filesystems)}"
        )
    return filesystem


def choose_kernel(project: Project, guest: Guest, options: ComposeOptions) -> PackageRef:
    """Return the kernel that the options or the manifest name, or else the newest kernel of the guest.

    Raises USAGE for a kernel of another guest.
    """
    named = project.package.kernel if guest.name == project.package.guest else ""
    asked = options.kernel or named
    wanted = OSV if guest.name == OSV else KERNEL
    ref = parse_ref(asked or wanted)
    if ref.name != wanted:
        raise DrumheadError(
            ErrorCode.USAGE, f"{asked} is not a kernel of guest {guest.name}; its kernels are {wanted}@VERSION"
        )
    return ref


async def find_kernel(home: Home, ref: PackageRef, report: Report) -> tuple[Package, list[str]]:
    """Return the kernel's package, pulled or built if necessary, and notices. Raises NOT_FOUND, REMOTE, HOST_TOOL."""
    store = PackageStore(home)
    if ref.name == OSV:
        return find_osv(store, ref.version), []
    found, notices = await gather_packages(home, store, [ref], report)
    return found[-1], notices


def choose_commands(
    project: Project, packages: tuple[Package, ...], options: ComposeOptions
) -> tuple[dict[str, Command], str]:
    """Return the config sets of an image and the name of the default one. Raises MANIFEST, USAGE."""
    commands = resolve_commands(project, packages)
    for package in packages:
        # Config sets of applications belong to the image; those of interpreters only if --run names one.
        if package.kind == "application" or options.run in package.config_sets:
            commands = package.config_sets | commands
    default = project.run.default if project.run else ""
    if options.run:
        default = options.run if options.run in commands else RUN
        if default == RUN and RUN not in commands:
            commands[RUN] = parse_command(options.run, options.env)
    if options.env:
        commands = {
            name: msgspec.structs.replace(command, env=command.env | options.env) for name, command in commands.items()
        }
    return commands, default


def resolve_commands(project: Project, packages: tuple[Package, ...]) -> dict[str, Command]:
    """Return the project's config sets with inherited ones resolved. Raises MANIFEST for a base that does not exist."""
    if project.run is None:
        return {}
    commands = dict(project.run.config_sets)
    for name, base in project.run.bases.items():
        refs, _ = resolve_names([base.package])
        wanted = refs[0].name if refs else base.package
        if wanted == DEFAULT_NODE and (node := find_node(packages)):
            wanted = node.name
        offered = {other.name: other.config_sets for other in packages}.get(wanted)
        if offered is None:
            raise DrumheadError(ErrorCode.MANIFEST, f"{base.place}: {_no_such_package(project, wanted)}")
        if base.config_set not in offered:
            sets = ", ".join(offered) or "none"
            raise DrumheadError(
                ErrorCode.MANIFEST,
                f"{base.place}: {name}: {wanted} has no config set {base.config_set}; it has {sets}",
            )
        own, inherited = commands[name], offered[base.config_set]
        commands[name] = msgspec.structs.replace(inherited, env=inherited.env | own.env, cwd=own.cwd or inherited.cwd)
    return commands


def _no_such_package(project: Project, package: str) -> str:
    if package == project.package.name:
        return "base must name a config set of another package, which meta/package.yaml requires"
    return f"package {package} is not required; add it to require in meta/package.yaml"
