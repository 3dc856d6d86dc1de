"""The contract of a guest, which Linux and OSv implement.

``image`` asks a guest what a tree needs and what boots it; ``machine`` asks it for a boot plan. A guest starts no
process and writes no file: it only computes records from records.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from drumhead.records import Command

if TYPE_CHECKING:
    from drumhead.records import Filesystem, GuestName, Image, ImageFiles
    from drumhead.tree import Tree


Capability = Literal[
    "exec",
    "shell",
    "overlay",
    "readonly-volume",
    "second-volume",
    "qcow2-volume",
    "holes",
    "snapshot",
    "listening",
    "ipv6",
]
"""Capabilities that some guests lack: ``drumhead exec``, a shell on the console, a disk for all writes (``--size``),
read-only volumes, more than one volume, volumes in qcow2 format, sparse files on volumes, resuming from a
snapshot, reporting whether the program listens, IPv6 addresses on the private network.
"""


class GuestNic(msgspec.Struct, frozen=True, kw_only=True):
    """A network card as the guest sees it. `address` is IPv4 with a prefix (``10.77.3.4/16``); empty means DHCP.

    `address6` is an additional IPv6 address (``fd00::1/64``); if it is empty, the card has no IPv6. In a resumed
    machine the card has `saved_mac` until the guest sets `mac`.
    """

    mac: str
    saved_mac: str = ""
    address: str = ""
    address6: str = ""
    gateway: str = ""
    nameserver: str = ""


class GuestMount(msgspec.Struct, frozen=True, kw_only=True):
    """A data disk (by its virtio serial number), and the directory where the guest mounts it."""

    serial: str
    path: str
    readonly: bool = False


SECRETS = "/run/secrets"
"""The guest's in-memory directory of secrets. Each secret is a file that only root can read."""


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration that a machine receives when it starts, as JSON (``config.json``).

    `hosts` maps names to IPv4 addresses (for /etc/hosts), `hosts6` to IPv6 addresses. `overlay` is the serial
    number of the disk that takes writes; empty means memory. The commands `before` run first, one after another; if
    one fails, the machine ends with its status. `stop_grace` is the number of seconds between the stop signal and the
    kill. `memory` is in MiB. `secrets` maps the names of files below SECRETS to their text.
    """

    hostname: str
    command: Command
    before: tuple[Command, ...] = ()
    nics: tuple[GuestNic, ...] = ()
    hosts: dict[str, str] = {}
    hosts6: dict[str, str] = {}
    mounts: tuple[GuestMount, ...] = ()
    overlay: str = ""
    stop_grace: float = 10.0
    memory: int = 256
    secrets: dict[str, str] = {}


class WarmConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a machine that will be saved.

    The guest starts the interpreter `warm` unless its argv is empty, waits until it has imported its modules, reports
    ``warm`` and waits for a ``Configure`` on the control channel.
    """

    warm: Command


class Configure(msgspec.Struct, frozen=True, kw_only=True):
    """The request that a resumed machine receives on its control channel.

    `time` is the host's, in seconds since the epoch. `entropy` is 64 random bytes in hexadecimal digits. `order` makes
    the warm interpreter run the command of `config`; if it is empty, a new process runs it.
    """

    do: Literal["configure"] = "configure"
    config: RunConfig
    time: float
    entropy: str
    order: str = ""


class Drive(msgspec.Struct, frozen=True, kw_only=True):
    """A virtio-blk disk. `serial` (at most 20 bytes) identifies it in the guest, regardless of the order of detection.

    A ``vmdk`` is a text file that composes a read-only disk from parts of other files (``filesystem.rofs.root``).
    With `writethrough` the host flushes every write before it reports completion, for a guest that never flushes.
    """

    path: Path
    format: Literal["raw", "qcow2", "vmdk"]
    serial: str
    readonly: bool
    writethrough: bool = False


CHANNEL_ADDRESS = "10.0.2.100"
"""The address at which a guest without virtio-serial reaches its channels. QEMU's user network answers for it."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel between host and guest: a Unix ``socket`` in the instance's directory, or a ``file`` to append to.

    The guest reaches it as the virtio-serial port `name` or, if `port` is not 0, by TCP at CHANNEL_ADDRESS. A port that
    is `on_demand` is plugged in when it is first used, because the guest keeps buffers for every port that it has.
    """

    name: str
    kind: Literal["socket", "file"]
    path: Path
    port: int = 0
    on_demand: bool = False


SESSIONS = 4
"""The number of programs that may run beside the command at the same time (``drumhead exec``)."""


def exec_channel(state: Path, number: int) -> Channel:
    """Return the channel of one of these programs."""
    return Channel(
        name=f"org.drumhead.exec.{number}", kind="socket", path=state / f"exec.{number}.sock", on_demand=True
    )


class BootPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that QEMU needs to know about a guest. It is pure data, made without touching the host.

    `files` are small files (path → contents) to write before the machine starts; for Linux, an initrd with the run
    configuration is among them. `console` is the file that records the serial console: ``log`` if the command has
    no other channel for its output.
    """

    kernel: Path
    initrd: Path | None
    cmdline: str
    drives: tuple[Drive, ...]
    channels: tuple[Channel, ...]
    console: Literal["console", "log"] = "console"
    files: dict[Path, bytes] = {}


class ProbeBoot(msgspec.Struct, frozen=True, kw_only=True):
    """The shortest boot of a guest: kernel and initrd only.

    It prints `marker` on the serial console and switches off.
    """

    kernel: Path
    initrd: Path | None
    cmdline: str
    marker: str


Severity = Literal["refused", "program", "notice", "quiet"]
"""``refused``: the image is not composed. ``program``: refused if a config set starts the file, else a notice.
``quiet``: refused if a config set starts the file, else nothing. ``notice``: always a notice.
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A file of an image that its guest cannot run. `path` has no leading slash; messages append `sentence` to it."""

    path: str
    severity: Severity
    sentence: str


class GuestProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A C program that a guest puts into its images. ``image.guest_program`` compiles it.

    `sources` is a directory of C files, `shipped` is the path at which a wheel may ship the compiled program, and
    `compiler` is the command that compiles the sources. Its warnings are no errors, because they depend on the version
    of the host's compiler.
    """

    sources: Path
    shipped: Path
    compiler: tuple[str, ...]


class Guest(Protocol):
    """One kind of guest. Implementations are stateless; ``guest.find_guest(name)`` returns them."""

    @property
    def name(self) -> GuestName: ...

    @property
    def filesystems(self) -> tuple[Filesystem, ...]:
        """The file systems that the kernel reads. The first is the default."""
        ...

    @property
    def unsupported(self) -> Mapping[Capability, str]:
        """The capabilities that the guest does not have, each with a reason for the user."""
        ...

    @property
    def least_memory(self) -> int:
        """The minimum memory in MiB with which the kernel boots and starts a small program."""
        ...

    @property
    def volume_options(self) -> tuple[str, ...]:
        """Options of mke2fs for a new volume, in addition to those for every volume."""
        ...

    @property
    def program(self) -> GuestProgram:
        """The C program of this guest. ``skeleton`` and ``initrd`` receive the compiled program."""
        ...

    def skeleton(self, program: bytes) -> Tree:
        """Return the files and directories that every application gets (mount points, /etc/passwd)."""
        ...

    @property
    def check_rules(self) -> int:
        """The version of the rules of ``check``. Increase it when they change, because findings are stored with
        layers.
        """
        ...

    def check(self, tree: Tree) -> tuple[Finding, ...]:
        """Return findings about files of one layer that this guest cannot run. Only read the tree, and run nothing."""
        ...

    def check_command(self, tree: Tree, command: Command, program: str) -> tuple[Finding, ...]:
        """Return findings about a config set that the files of the application (`tree`) reveal.

        `program` is the path of its program. ``check`` has already found whether that can start.
        """
        ...

    def initrd(self, kernel_files: Mapping[str, bytes], program: bytes) -> bytes | None:
        """Return the initial RAM disk for the files of a kernel package (path → contents), or None.

        The same input gives the same bytes.
        """
        ...

    def plan(
        self, image: Image, files: ImageFiles, config: RunConfig, state: Path, data: tuple[Drive, ...]
    ) -> BootPlan:
        """Return the plan for booting `image` with `config`.

        `state` is the instance's directory, which contains sockets and logs. `data` are the overlay and the volumes,
        which follow the image's drives. Raises UNSUPPORTED if the guest does not support the configuration.
        """
        ...

    def plan_snapshot(
        self, image: Image, files: ImageFiles, config: WarmConfig | None, state: Path, data: tuple[Drive, ...]
    ) -> BootPlan:
        """Return the plan for a machine that will be saved (with `config`) or that is resumed (without).

        The two plans do not differ in anything that QEMU saves. Raises UNSUPPORTED if there are no snapshots.
        """
        ...

    def warm_interpreter(self, image: Image) -> Command:
        """Return the interpreter in a snapshot of `image`. Its argv is empty if there is none."""
        ...

    def warm_order(self, warm: Command, command: Command) -> str:
        """Return the line that makes the interpreter `warm` become `command`, or an empty string if it cannot."""
        ...

    def probe(self, files: ImageFiles) -> ProbeBoot:
        """Return the boot that tests whether an accelerator works."""
        ...
