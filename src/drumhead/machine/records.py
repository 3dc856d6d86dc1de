"""Records of a machine: its spec, its last start and its state."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.records import Command

Accelerator = Literal["kvm", "tcg"]
NetworkMode = Literal["nat", "bridge", "tap", "vhost"]
RestartPolicy = Literal["no", "on-failure", "always"]
InstanceState = Literal["starting", "running", "asleep", "exited", "failed"]
"""starting: QEMU runs, the command does not yet. asleep: its supervisor starts it at the next connection.

exited: the command ended or was stopped. failed: the machine could not boot, or ended without reporting its command's
status.
"""


class PortForward(msgspec.Struct, frozen=True, kw_only=True):
    """``-f [ADDRESS:]HOST_PORT:GUEST_PORT[/udp]``; `host_port` 0 means any free port. Bound to 127.0.0.1 by default.

    An IPv6 address stands without its brackets.
    """

    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_address: str = "127.0.0.1"

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host_address

    @property
    def endpoint(self) -> str:
        """The host's side as people write it: ``127.0.0.1:8080``, ``[::1]:8080``."""
        return f"[{self.host_address}]:{self.host_port}" if self.is_ipv6 else f"{self.host_address}:{self.host_port}"


class VolumeMount(msgspec.Struct, frozen=True, kw_only=True):
    """``--volume NAME:/path[:SIZE][:ro]``: a named volume (created with `size` bytes when missing) or the path of a
    disk.
    """

    source: str
    path: str
    readonly: bool = False
    size: int = 1 << 30


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for with the flags of ``drumhead run``. `memory` is in MiB.

    An empty `mac` is derived from the name, so the same name has the same address at every start.
    """

    name: str
    image: str
    guest: str = ""
    """The guest whose image of that name is meant; empty means the only image, or Linux's."""
    command: Command
    before: tuple[Command, ...] = ()
    """Commands that run to their end before it, one after another."""
    memory: int = 256
    cpus: int = 1
    network: NetworkMode = "nat"
    network_device: str = ""
    """The host's bridge (bridge, vhost) or tap device (tap); empty means the usual device."""
    private_network: str = "default"
    """The private network shared with other instances of this host; a fleet has its own."""
    mac: str = ""
    forwards: tuple[PortForward, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    aliases: tuple[str, ...] = ()
    """Further names by which other machines of the network find it."""
    restart: RestartPolicy = "no"
    """Whether its supervisor starts it again when it has ended."""
    sleep_after: float = 0.0
    """Seconds without a connection after which its supervisor stops it until the next one; 0: it is not stopped."""
    cold: bool = False
    """It boots even where a snapshot could be resumed."""
    secrets: tuple[str, ...] = ()
    """The secrets that it receives, ``FLEET/NAME``. Their text is read when it starts, and recorded nowhere."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """instances/NAME/instance.json: how a machine was last started. Written before QEMU starts and not changed after.

    Later events are recorded by others: QEMU keeps its pid file locked while it runs, and the guest reports on its
    status port. `mac` and `address` belong to the card on the private network. `forwards` have every host port filled
    in. `attached` machines die with the command that started them. `started_at` is in seconds since the epoch.
    """

    spec: InstanceSpec
    image_digest: str
    guest: str = "linux"
    accelerator: Accelerator
    mac: str
    address: str
    address6: str = ""
    """The IPv6 address of the same card; empty where there is none."""
    forwards: tuple[PortForward, ...]
    started_at: float
    attached: bool
    fleet: str = ""
    inner_forwards: tuple[PortForward, ...] = ()
    """What QEMU forwards in place of `forwards`, to which a supervisor (of a machine that sleeps) or a relay (from an
    IPv6 address) copies what reaches these; empty where QEMU forwards them itself.
    """
    snapshot: str = ""
    """The key of the snapshot that it was resumed from; empty when it booted."""


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """instances/NAME/supervision.json: what a machine's supervisor has done. `reason` says how the machine ended last;
    `waits` tells that it is started again after a delay, `asleep` that the next connection starts it, and `lost`, which
    is never stored, that the supervisor has ended without the machine, so nobody restarts it.
    """

    restarts: int = 0
    reason: str = ""
    waits: bool = False
    asleep: bool = False
    lost: bool = False


class GuestMemory(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of a guest in bytes: what its kernel manages, and what of it programs can still get."""

    total: int
    free: int


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a machine at one moment, made by ``instances.Instances.read`` and never stored.

    `pid` is QEMU's, 0 when it has ended. `exit_status` is the command's (128 + n after signal n); `reason` says why a
    machine failed. `addresses` maps the guest's cards to the addresses that it reported. `resident` is the memory
    that it uses on the host, in bytes.
    """

    launch: Launch
    state: InstanceState
    pid: int = 0
    ended_at: float = 0.0
    exit_status: int | None = None
    reason: str = ""
    addresses: dict[str, str] = {}
    resident: int = 0
    memory: GuestMemory | None = None
    """What the guest says of its memory; None where it was not asked or did not answer."""
    supervision: Supervision | None = None
    """What its supervisor has done since that was started; None where it has none (``--restart``)."""

    @property
    def address(self) -> str:
        """The address at which other machines reach it; empty until a DHCP server has given one."""
        return self.launch.address or self.addresses.get("eth0", "")
