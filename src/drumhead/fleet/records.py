"""Records of a fleet: the validated fleet file, and the state of its machines."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.machine.records import PortForward, VolumeMount

MAX_COUNT = 100
"""The maximum number of machines of one member."""
RestartPolicy = Literal["no", "on-failure", "always"]
Health = Literal["waiting", "starting", "healthy", "restarting", "ended", "failed"]
"""waiting: for the members that it depends on. ended: for good, with success. failed: for good, with an error."""


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A health check: a GET of `path` on `port` answers 2xx or, if `path` is empty, the port accepts connections.

    It runs every `interval` seconds until the machine is healthy, for at most `timeout` seconds, and then every
    `recheck` seconds. A machine that gives no answer at all `failures` times in a row has failed (0: no recheck).
    """

    port: int
    path: str = ""
    interval: float = 0.25
    timeout: float = 120.0
    recheck: float = 10.0
    failures: int = 6


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A member of a fleet: `count` machines named ``FLEET-NAME``, ``FLEET-NAME-2``, ``FLEET-NAME-3`` …

    They run `command` (a command line) or `config_set` (``run:`` in the file), or else the image's default command.
    `guest` is the guest of the image; empty means that of the only image, or Linux.
    Each machine has its own copy of a named volume: ``FLEET-VOLUME``, ``FLEET-VOLUME-2`` …
    """

    image: str
    guest: str = ""
    config_set: str = ""
    command: str = ""
    count: int = 1
    memory: int = 256
    cpus: int = 1
    env: dict[str, str] = {}
    after: tuple[str, ...] = ()
    """Members that must be healthy before this one starts. A member without machines holds nobody up."""
    health: HealthCheck | None = None
    restart: RestartPolicy = "on-failure"
    outgoing: bool = True
    """Whether the machines can reach the host, its networks and the Internet, and not only the fleet."""
    forwards: tuple[PortForward, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    secrets: tuple[str, ...] = ()
    """Secrets of the fleet that the machines receive as files, ``/run/secrets/NAME``."""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet, from fleet.yaml or fleets/NAME/fleet.json. Members reach one another by name (``http://db:8001``).

    `revision` counts changes (another ``up``, ``scale``), so a command can see when the supervisor has applied its
    change. `secrets` are names; ``up`` creates secrets that do not exist yet (``machine.secrets``).
    """

    name: str
    members: dict[str, Member]
    revision: int = 0
    secrets: tuple[str, ...] = ()


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor's record of one machine of the fleet."""

    member: str
    health: Health
    restarts: int = 0
    reason: str = ""


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a fleet (fleets/NAME/state.json), which the supervisor writes at every change.

    `revision` is the revision of the fleet that the supervisor has applied.
    """

    revision: int = 0
    machines: dict[str, MachineState] = {}
