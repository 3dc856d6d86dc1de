"""A fleet file (fleet.yaml), after reading and checking."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.machine.records import PortForward, VolumeMount

RestartPolicy = Literal["no", "on-failure", "always"]
Health = Literal["waiting", "starting", "healthy", "restarting", "ended", "failed"]
"""waiting: for members that it comes after. ended: well and for good. failed: not well, and not started again."""


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """When a member counts as up: a GET of `path` on `port` answers 2xx, or (empty path) the port accepts.

    It is asked every `interval` seconds until it is up, for at most `timeout`; from then on every `recheck` seconds,
    and one that gives no answer of any kind `failures` times in a row has failed (0: it is not asked again).
    """

    port: int
    path: str = ""
    interval: float = 0.25
    timeout: float = 120.0
    recheck: float = 10.0
    failures: int = 6


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the fleet: `count` machines named ``FLEET-NAME``, ``FLEET-NAME-2``, ``FLEET-NAME-3`` …

    `command` (words) or `config_set` (``run:`` in the file) says what they start; without both, the image's default.
    `guest` says which image of that name; empty means the only one, or Linux's.
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


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """fleet.yaml, and fleets/NAME/fleet.json. Members reach one another by their member name (``http://db:8001``).

    `revision` counts the changes (``up`` again, ``scale``), so that whoever makes one can see that it was taken up.
    """

    name: str
    members: dict[str, Member]
    revision: int = 0


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper of a fleet knows of one of its machines."""

    member: str
    health: Health
    restarts: int = 0
    reason: str = ""


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """fleets/NAME/state.json: written by the keeper at every change. `revision` is that of the fleet it works on."""

    revision: int = 0
    machines: dict[str, MachineState] = {}
