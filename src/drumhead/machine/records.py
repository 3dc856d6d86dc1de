"""What was asked of a machine, and what is known of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.manifest.records import Command

Accelerator = Literal["kvm", "tcg"]
NetworkMode = Literal["nat", "bridge", "tap", "vhost"]
InstanceState = Literal["created", "running", "exited", "failed"]


class PortForward(msgspec.Struct, frozen=True, kw_only=True):
    """``-f HOST_PORT:GUEST_PORT[/udp]``; `host_port` 0 asks for any free port. Bound on 127.0.0.1 unless told."""

    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_address: str = "127.0.0.1"


class VolumeMount(msgspec.Struct, frozen=True, kw_only=True):
    """``--volume NAME:/path[:ro]``: a named volume (made when missing, `size` bytes) or a path of an existing disk."""

    source: str
    path: str
    readonly: bool = False
    size: int = 1 << 30


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for: the whole of ``drumhead run``'s flags. `memory` is in MiB.

    Empty `mac` means: derived from the name, so that the same name has the same address at every launch.
    """

    name: str
    image: str
    command: Command
    memory: int = 256
    cpus: int = 1
    network: NetworkMode = "nat"
    network_device: str = ""
    link: str = "default"
    """The private network shared with other instances of this host; a fleet has its own."""
    mac: str = ""
    forwards: tuple[PortForward, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    aliases: tuple[str, ...] = ()
    """Further names under which its neighbours find it."""


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """instances/NAME/instance.json: what is known of a machine. Written by rename, so a reader sees a whole record.

    `address` is its IPv4 address on the link. `exit_status` is the command's (128 + n after signal n); `reason` says
    why a machine failed. Times are seconds since the epoch.
    """

    spec: InstanceSpec
    image_digest: str
    accelerator: Accelerator
    mac: str
    address: str
    pid: int
    pid_start_time: int
    """The process's start time in clock ticks (/proc/PID/stat field 22), so that a reused pid is not taken for it."""
    started_at: float
    ended_at: float = 0.0
    state: InstanceState = "created"
    exit_status: int | None = None
    reason: str = ""
    fleet: str = ""
