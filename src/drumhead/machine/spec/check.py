"""Check the spec of a machine against the files of its image, before the machine starts."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from drumhead.closure import follow
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest
from drumhead.image.checks.programs import find_program, is_made_at_start, package_advice, refuse_program
from drumhead.image.contents import image_findings, image_index
from drumhead.image.timezones import zone_fault
from drumhead.machine.spec.options import usage

if TYPE_CHECKING:
    from drumhead.closure import Index
    from drumhead.guest import Guest
    from drumhead.home import Home
    from drumhead.machine.records import InstanceSpec
    from drumhead.records import Command, Image


def check_spec(home: Home, image: Image, spec: InstanceSpec) -> None:
    """Check the programs, the time zones and the mount points of a machine. Raises USAGE, UNSUPPORTED.

    The config sets of the image were checked when it was composed. The files of a pulled image are unknown, so its
    machines are not checked.
    """
    composed = {command.env.get("TZ") for command in image.commands.values()}
    zones = [command for command in (*spec.before, spec.command) if command.env.get("TZ") not in {None, *composed}]
    programs = [command for command in (*spec.before, spec.command) if _is_unchecked(image, command)]
    index = image_index(home, image) if zones or programs or spec.volumes else None
    if index is None:
        return
    guest = find_guest(image.guest)
    for command in programs:
        if fault := _program_fault(index, command, [volume.path for volume in spec.volumes], guest):
            raise usage(fault)
        refuse_program(guest, image_findings(home, image), find_program(index, command), "the command")
    for command in zones:
        if fault := zone_fault(index, command):
            raise usage(fault)
    for volume in spec.volumes:
        if file := _file_above(index, volume.path):
            raise usage(f"a volume cannot be mounted at {volume.path}: {file} is a file of the image")
        if "overlay" in guest.unsupported and not follow(index, volume.path):
            raise usage(
                f"a volume cannot be mounted at {volume.path}: the image has no such directory, and a machine on "
                f"{guest.name} cannot make one; mount it at /data or /mnt, or put an empty directory into the project"
            )


def _is_unchecked(image: Image, command: Command) -> bool:
    """Return whether a command was not checked when the image was composed: the command of a command line."""
    return command.argv not in [known.argv for known in image.commands.values()]


def _program_fault(index: Index, command: Command, mounted: list[str], guest: Guest) -> str:
    """Return why a program cannot start, or an empty string if it can, or may, because it is not looked for here."""
    name = command.argv[0] if command.argv else ""
    place = posixpath.join(command.cwd, name) if "/" in name else ""
    elsewhere = "PATH" in command.env if not place else is_made_at_start(place)
    elsewhere = elsewhere or any(f"{place}/".startswith(f"{path.rstrip('/')}/") for path in mounted)
    if not name or elsewhere:
        return ""
    program = find_program(index, command)
    if not program:
        advice = package_advice(index, name)
        return f"the command starts {name}, which is not in the image; {advice}, or correct the name"
    if index[program].kind != "file":
        return f"the command starts {name}, which is a directory"
    if "rofs" not in guest.filesystems and not index[program].mode & 0o111:
        return (
            f"the command starts {name}, which is not executable; chmod +x that file of the project, and compose again"
        )
    return ""


def _file_above(index: Index, path: str) -> str:
    """Return the path, or the part of it, that is a file; empty if the path is a directory or does not exist yet."""
    parts = path.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        part = "/" + "/".join(parts[:count])
        found = index.get(follow(index, part))
        if found and found.kind == "file":
            return part
    return ""


def check_memory(guest: Guest, memory: int) -> None:
    """Check that `memory`, in MiB, is enough for a machine on `guest`. Raises USAGE."""
    if memory < guest.least_memory:
        least = f"a machine on {guest.name} needs at least {guest.least_memory} MiB"
        raise DrumheadError(ErrorCode.USAGE, f"{memory} MiB of memory is too little; {least} (-m)")
