"""Plan which machines a fleet consists of and in which order they start. Nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.records import InstanceSpec, PortForward, VolumeMount
from drumhead.machine.spec.request import choose_command

if TYPE_CHECKING:
    from drumhead.fleet.records import Fleet, Member
    from drumhead.records import Image


@dataclass(frozen=True, kw_only=True)
class PlannedMachine:
    """One machine of a fleet. `number` counts from 1 within its member."""

    name: str
    member_name: str
    number: int
    member: Member


def start_order(fleet: Fleet) -> list[str]:
    """Return the names of members, each after the members that it depends on. Raises USAGE for a cycle."""
    try:
        return list(TopologicalSorter({name: member.after for name, member in fleet.members.items()}).static_order())
    except CycleError as error:
        raise DrumheadError(ErrorCode.USAGE, f"members depend on one another: {' -> '.join(error.args[1])}") from error


def planned_machines(fleet: Fleet) -> dict[str, PlannedMachine]:
    """Return every machine of a fleet by name, in starting order. Raises USAGE if two have the same name."""
    machines: dict[str, PlannedMachine] = {}
    for member_name in start_order(fleet):
        member = fleet.members[member_name]
        for number in range(1, member.count + 1):
            name = machine_name(fleet.name, member_name, number)
            if name in machines:
                raise DrumheadError(
                    ErrorCode.USAGE,
                    f"machine {name} belongs to {machines[name].member_name} and to {member_name}; rename one of them",
                )
            machines[name] = PlannedMachine(name=name, member_name=member_name, number=number, member=member)
    return machines


def machine_name(fleet: str, member: str, number: int) -> str:
    return f"{fleet}-{member}" + (f"-{number}" if number > 1 else "")


def machine_spec(fleet: str, wanted: PlannedMachine, image: Image) -> InstanceSpec:
    """Return the spec of a machine. A health check whose port is not forwarded gets a free port of the host."""
    member = wanted.member
    forwards = member.forwards
    if member.health is not None and find_forward(forwards, member.health.port) is None:
        forwards = (*forwards, PortForward(host_port=0, guest_port=member.health.port))
    return InstanceSpec(
        name=wanted.name,
        image=member.image,
        guest=member.guest,
        command=choose_command(image, config_set=member.config_set, command_line=member.command, env=member.env),
        memory=member.memory,
        cpus=member.cpus,
        private_network=fleet,
        outgoing=member.outgoing,
        forwards=forwards,
        volumes=tuple(_own_volume(fleet, wanted, volume) for volume in member.volumes),
        aliases=(wanted.member_name,) if wanted.number == 1 else (),
        secrets=tuple(secret_name(fleet, name) for name in member.secrets),
    )


def secret_name(fleet: str, secret: str) -> str:
    """Return the name of a fleet's secret below the home's secrets. Neither part contains a slash."""
    return f"{fleet}/{secret}"


def with_guest(fleet: Fleet, guest: str) -> Fleet:
    """Return the fleet with `guest` for every member."""
    members = {name: msgspec.structs.replace(member, guest=guest) for name, member in fleet.members.items()}
    return msgspec.structs.replace(fleet, members=members)


def find_forward(forwards: tuple[PortForward, ...], port: int) -> PortForward | None:
    """Return the forward to a TCP port of the guest, or None."""
    return next((one for one in forwards if one.guest_port == port and one.protocol == "tcp"), None)


def _own_volume(fleet: str, wanted: PlannedMachine, volume: VolumeMount) -> VolumeMount:
    if "/" in volume.source:
        return volume
    return msgspec.structs.replace(volume, source=machine_name(fleet, volume.source, wanted.number))


def shared(forwards: tuple[PortForward, ...], volumes: tuple[VolumeMount, ...]) -> tuple[str, str]:
    """Return why a member cannot have several machines: a key of the fleet file and the reason, or empty strings."""
    if any(forward.host_port for forward in forwards):
        return "forward", "several machines cannot share a port of the host; use 0:GUEST, or one machine"
    if any("/" in volume.source and not volume.readonly for volume in volumes):
        return "volumes", "several machines cannot write to one disk; name a volume, append :ro, or use one machine"
    return "", ""


def shared_volume(member: Member, other: Member) -> str:
    """Return the volume that two members which always run have and one of them writes to; empty where there is none.

    Members that may end for good, as migrations do, leave their volume to another.
    """
    return contested_volume(member, other) if member.restart == other.restart == "always" else ""


def waits_for_end(member: Member, other: Member) -> bool:
    """Return whether `member`, which comes after `other`, gets a volume only when `other` has ended for good."""
    return other.restart != "always" and bool(contested_volume(member, other))


def contested_volume(member: Member, other: Member) -> str:
    """Return the volume that both members have and one of them writes to; empty where there is none."""
    theirs = {volume.source: volume for volume in other.volumes}
    both = [volume for volume in member.volumes if volume.source in theirs]
    return next((one.source for one in both if not (one.readonly and theirs[one.source].readonly)), "")
