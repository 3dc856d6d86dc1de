"""Read the services of container images from a fleet file: command, ports, volumes and health check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.image.export.container import Health, Service
from drumhead.machine.spec.request import choose_command

if TYPE_CHECKING:
    from drumhead.fleet.records import Fleet, Member
    from drumhead.records import Image


def services_of(image: Image, fleet: Fleet) -> list[Service]:
    """Return a service for each member of the fleet that runs `image`. Raises USAGE if none does."""
    members = {name: member for name, member in fleet.members.items() if member.image == image.name}
    if not members:
        raise DrumheadError(ErrorCode.USAGE, f"no member of the fleet {fleet.name} runs the image {image.name}")
    return [_service(image, name, member) for name, member in members.items()]


def services_of_config_sets(image: Image, name: str = "") -> list[Service]:
    """Return a service for the config set `name`, or for each config set. Raises NOT_FOUND if `name` does not exist."""
    names = [name] if name else list(image.commands)
    return [Service(name=one, command=choose_command(image, config_set=one)) for one in names]


def _service(image: Image, name: str, member: Member) -> Service:
    ports = [f"{forward.guest_port}/{forward.protocol}" for forward in member.forwards]
    if member.health and f"{member.health.port}/tcp" not in ports:
        ports.append(f"{member.health.port}/tcp")
    return Service(
        name=name,
        command=choose_command(image, config_set=member.config_set, command_line=member.command, env=member.env),
        ports=tuple(ports),
        volumes=tuple(volume.path for volume in member.volumes),
        health=Health(port=member.health.port, path=member.health.path or "/") if member.health else None,
    )
