"""Records of machines: the spec, the last start and the state."""

from __future__ import annotations

from typing import Literal

import msgspec

from drumhead.records import Command

Accelerator = Literal["kvm", "tcg"]
NetworkMode = Literal["nat", "bridge", "tap", "vhost"]
RestartPolicy = Literal["no", "on-failure", "always"]
InstanceState = Literal["starting", "running", "asleep", "exited", "failed"]
"""starting: QEMU runs, but the command does not run yet. asleep: the supervisor starts it at the next connection.

exited: the command ended or was stopped. failed: the machine could not boot, or ended without reporting its command's
status.
"""


CANNOT_START = (126, 127)
"""The exit statuses of a command that could not be started, as in a shell."""


class PortForward(msgspec.Struct, frozen=True, kw_only=True):
    """A forward from ``-f [ADDRESS:]HOST_PORT:GUEST_PORT[/udp]``. `host_port` 0 means any free port.

    `host_address` is 127.0.0.1 by default; an IPv6 address has no brackets here.
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
        """The host's side in the usual notation: ``127.0.0.1:8080``, ``[::1]:8080``."""
        return f"[{self.host_address}]:{self.host_port}" if self.is_ipv6 else f"{self.host_address}:{self.host_port}"


class VolumeMount(msgspec.Struct, frozen=True, kw_only=True):
    """A volume from ``--volume NAME:/path[:SIZE][:ro]``.

    `source` is the name of a volume, which is created if it does not exist, or the path of a disk. A disk that has less
    than `size` bytes is enlarged; 0 is the size that it has, or the default one.
    """

    source: str
    path: str
    readonly: bool = False
    size: int = 0


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that the user requested with the flags of ``drumhead run``. `memory` is in MiB.

    An empty `mac` means that it is derived from the name, so the same name has the same address at every start.
    """

    name: str
    image: str
    guest: str = ""
    """The guest of the image; empty means the guest of the only image, or Linux if images for both guests exist."""
    command: Command
    before: tuple[Command, ...] = ()
    """Commands that run to their end before `command`, one after another."""
    memory: int = 256
    cpus: int = 1
    network: NetworkMode = "nat"
    network_device: str = ""
    """The host's bridge (bridge, vhost) or tap device (tap); empty means the usual device."""
    private_network: str = "default"
    """The private network shared with other instances of this host. A fleet has its own."""
    mac: str = ""
    outgoing: bool = True
    """Whether the machine can reach the host, its networks and the Internet, and not only its private network."""
    forwards: tuple[PortForward, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    aliases: tuple[str, ...] = ()
    """Further names that resolve to this machine on its network."""
    restart: RestartPolicy = "no"
    """Whether the supervisor starts the machine again when it has ended."""
    sleep_after: float = 0.0
    """Seconds without a connection after which the supervisor stops the machine until the next one; 0 means never."""
    cold: bool = False
    """Whether the machine boots even if it could resume from a snapshot."""
    secrets: tuple[str, ...] = ()
    """The secrets that the machine receives, ``FLEET/NAME``. Their text is read at each start and never recorded."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """The last start of a machine (instances/NAME/instance.json). Written before QEMU starts and never changed.

    Later events are recorded elsewhere: QEMU keeps its pid file locked while it runs, and the guest reports on its
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
    """The IPv6 address of the same card, or an empty string."""
    forwards: tuple[PortForward, ...]
    started_at: float
    attached: bool
    fleet: str = ""
    inner_forwards: tuple[PortForward, ...] = ()
    """The forwards of QEMU if another process listens on those in `forwards`, otherwise empty.

    That process, the supervisor of a machine that sleeps or the relay for an IPv6 address, copies connections to these.
    """
    snapshot: str = ""
    """The key of the snapshot that the machine was resumed from, or an empty string if it booted."""


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a machine's supervisor (instances/NAME/supervision.json).

    `reason` says why the machine last ended. With `waits` it will be started after a delay, with `asleep` at the next
    connection. `lost`, which is never stored, means that the supervisor has ended and nothing restarts the machine.
    """

    restarts: int = 0
    reason: str = ""
    waits: bool = False
    asleep: bool = False
    lost: bool = False


class GuestMemory(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of a guest in bytes: all that its kernel manages, and the part that is available to programs."""

    total: int
    free: int


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a machine at one moment, made by ``instances.Instances.read`` and never stored.

    `pid` is QEMU's, 0 when it has ended. `exit_status` is the command's (128 + n after signal n); `reason` says why a
    machine failed, or why its command did not start or was killed. `addresses` maps the guest's cards to the addresses
    that it reported. `resident` is the memory that it uses on the host, in bytes.
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
    """The guest's report of its memory, or None if it was not asked or did not answer."""
    paused: bool = False
    """Whether QEMU has paused the machine, because a write to one of its disks did not fit on the host."""
    supervision: Supervision | None = None
    """The record of the machine's supervisor, or None if it has none (``--restart``, ``--sleep-after``)."""

    @property
    def never_started(self) -> bool:
        """Whether the machine has ended because its command could not be started; `reason` says why."""
        return self.exit_status in CANNOT_START and bool(self.reason)

    @property
    def address(self) -> str:
        """The address at which other machines reach this one; empty until a DHCP server has assigned one."""
        return self.launch.address or self.addresses.get("eth0", "")
