"""A fleet file (fleet.yaml), after reading and checking."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.machine.records import PortForward, VolumeMount


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """When a member counts as up: a GET of `path` on `port` answers 2xx, or (empty path) the port accepts. Seconds."""

    port: int
    path: str = ""
    interval: float = 0.25
    timeout: float = 120.0


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the fleet: `count` machines named ``FLEET-NAME`` (or ``FLEET-NAME-1`` … when count may exceed 1)."""

    image: str
    config_set: str = ""
    command: str = ""
    count: int = 1
    memory: int = 256
    cpus: int = 1
    env: dict[str, str] = {}
    after: tuple[str, ...] = ()
    """Members that must be healthy before this one starts."""
    health: HealthCheck | None = None
    restart: Literal["no", "on-failure", "always"] = "on-failure"
    forwards: tuple[PortForward, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """fleet.yaml. Members reach one another by their member name (``http://db:8001``)."""

    name: str
    members: dict[str, Member]
