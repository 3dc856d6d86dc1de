"""Check the spec of a machine against the files of its image, before the machine starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.closure import follow
from drumhead.image.contents import image_index
from drumhead.image.timezones import zone_fault
from drumhead.machine.spec.options import usage

if TYPE_CHECKING:
    from drumhead.closure import Index
    from drumhead.home import Home
    from drumhead.machine.records import InstanceSpec
    from drumhead.records import Image


def check_spec(home: Home, image: Image, spec: InstanceSpec) -> None:
    """Check the time zones and the mount points of a machine. Raises USAGE.

    The config sets of the image were checked when it was composed. The files of a pulled image are unknown, so its
    machines are not checked.
    """
    composed = {command.env.get("TZ") for command in image.commands.values()}
    zones = [command for command in (*spec.before, spec.command) if command.env.get("TZ") not in {None, *composed}]
    index = image_index(home, image) if zones or spec.volumes else None
    if index is None:
        return
    for command in zones:
        if fault := zone_fault(index, command):
            raise usage(fault)
    for volume in spec.volumes:
        if file := _file_above(index, volume.path):
            raise usage(f"a volume cannot be mounted at {volume.path}: {file} is a file of the image")


def _file_above(index: Index, path: str) -> str:
    """Return the path, or the part of it, that is a file; empty if the path is a directory or does not exist yet."""
    parts = path.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        part = "/" + "/".join(parts[:count])
        found = index.get(follow(index, part))
        if found and found.kind == "file":
            return part
    return ""
