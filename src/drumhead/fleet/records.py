"""Records of a fleet: the validated fleet file, and the state of its machines."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.machine.records import PortForward, VolumeMount

MAX_COUNT = 100
"""Machines that one member may have."""
RestartPolicy = Literal["no", "on-failure", "always"]
Health = Literal["waiting", "starting", "healthy", "restarting", "ended", "failed"]
"""waiting: for the members it depends on. ended: with success, for good. failed: with an error, and not restarted."""


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """When a member is healthy: a GET of `path` on `port` answers 2xx, or (empty path) the port accepts connections.

    It is polled every `interval` seconds until it is healthy, for at most `timeout` seconds; after that every `recheck`
    seconds. A member that gives no answer at all `failures` times in a row has failed (0: it is not polled again).
    """

    port: int
    path: str = ""
    interval: float = 0.25
    timeout: float = 120.0
    recheck: float = 10.0
    failures: int = 6


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the fleet: `count` machines named ``FLEET-NAME``, ``FLEET-NAME-2``, ``FLEET-NAME-3`` …

    They run `command` (a command line) or `config_set` (``run:`` in the file), or else the image's default command.
    `guest` selects the image of that name; empty means the only one, or Linux's.
    A named volume belongs to the fleet and, beyond the first machine, to one machine: ``FLEET-VOLUME-2``.
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
    """Members that must be healthy before this one starts."""
    health: HealthCheck | None = None
    restart: RestartPolicy = "on-failure"
    forwards: tuple[PortForward, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    secrets: tuple[str, ...] = ()
    """Secrets of the fleet that its machines receive as files, ``/run/secrets/NAME``."""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """fleet.yaml, and fleets/NAME/fleet.json. Members reach one another by their member name (``http://db:8001``).

    `revision` counts changes (another ``up``, ``scale``), so a command can see when the supervisor has applied its own.
    `secrets` are names; ``up`` makes the secrets that do not exist yet (``machine.secrets``).
    """

    name: str
    members: dict[str, Member]
    revision: int = 0
    secrets: tuple[str, ...] = ()


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor of a fleet knows about one of its machines."""

    member: str
    health: Health
    restarts: int = 0
    reason: str = ""


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """fleets/NAME/state.json: written by the supervisor at every change.

    `revision` is the fleet's revision that it applies.
    """

    revision: int = 0
    machines: dict[str, MachineState] = {}
