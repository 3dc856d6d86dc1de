"""The contract of a guest, which Linux and OSv implement.

``image`` asks a guest what a tree needs and what boots it; ``machine`` asks it for a boot plan. A guest never starts a
process and never writes a file: it turns records into records.
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


Capability = Literal["exec", "shell", "overlay", "readonly-volume", "second-volume", "qcow2-volume", "holes"]
"""What a guest may lack: ``drumhead exec``, a shell on the console, a disk that takes the writes below every directory
(``--size``), a volume that is not written, more than one volume, a volume in QEMU's own format, files on a volume that
have holes.
"""


class GuestNic(msgspec.Struct, frozen=True, kw_only=True):
    """A network card as the guest sees it. No `address` (IPv4 with prefix, ``10.77.3.4/16``) means DHCP."""

    mac: str
    address: str = ""
    gateway: str = ""
    nameserver: str = ""


class GuestMount(msgspec.Struct, frozen=True, kw_only=True):
    """A data disk (by its virtio serial number) and the directory where the guest mounts it; formatted when blank."""

    serial: str
    path: str
    readonly: bool = False


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is told when it starts, in the guest's own terms. Delivered as JSON (``config.json``).

    `hosts` maps names to IPv4 addresses (the generated /etc/hosts). `overlay` is the serial number of the disk that
    takes writes; empty means memory. `stop_grace` is the number of seconds between the stop signal and the kill.
    `memory` is in MiB.
    """

    hostname: str
    command: Command
    nics: tuple[GuestNic, ...] = ()
    hosts: dict[str, str] = {}
    mounts: tuple[GuestMount, ...] = ()
    overlay: str = ""
    stop_grace: float = 10.0
    memory: int = 256


class Drive(msgspec.Struct, frozen=True, kw_only=True):
    """A virtio-blk disk. `serial` (at most 20 bytes) is how the guest knows it whatever the order of the probe.

    A ``vmdk`` is a text that puts a read-only disk together from parts of other files (``filesystem.rofs.root``).
    `writethrough`: the host flushes every write before it says that it is done, for a guest that never asks for it.
    """

    path: Path
    format: Literal["raw", "qcow2", "vmdk"]
    serial: str
    readonly: bool
    writethrough: bool = False


CHANNEL_ADDRESS = "10.0.2.100"
"""Where a guest without virtio-serial finds its channels: an address that QEMU's user network answers for."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A way between host and guest. ``socket``: a Unix socket in the instance's directory; ``file``: the guest appends.

    The guest reaches it as the virtio-serial port `name`, or, where `port` is not 0, by TCP at CHANNEL_ADDRESS.
    """

    name: str
    kind: Literal["socket", "file"]
    path: Path
    port: int = 0


class BootPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that QEMU has to be told about a guest: pure data, put together without touching the host.

    `files` are small files that must be written (path → contents) before the machine starts, an initrd with the run
    configuration among them where the guest takes it that way. `console` is the file that keeps what the serial
    console shows: ``log`` where a command has no other way to be heard.
    """

    kernel: Path
    initrd: Path | None
    cmdline: str
    drives: tuple[Drive, ...]
    channels: tuple[Channel, ...]
    console: Literal["console", "log"] = "console"
    files: dict[Path, bytes] = {}


class ProbeBoot(msgspec.Struct, frozen=True, kw_only=True):
    """The shortest boot of a guest: nothing but kernel and initrd, `sign` on the serial console, then off."""

    kernel: Path
    initrd: Path | None
    cmdline: str
    sign: str


Severity = Literal["refused", "program", "notice", "quiet"]
"""``refused``: the image is not composed. ``program``: not when a config set starts the file, else a notice.
``quiet``: not when a config set starts the file, else nothing. ``notice``: the user is told.
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Something in an image that its guest cannot do. `path` has no leading slash; `sentence` goes on behind it."""

    path: str
    severity: Severity
    sentence: str


class GuestProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A C program that a guest puts into its images. ``image.guest_program`` compiles it.

    `sources` is a directory of C files, `shipped` the path where a wheel may bring the compiled program, `compiler` the
    command that compiles the sources.
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
        """What its kernel reads; the first is the default."""
        ...

    @property
    def unsupported(self) -> Mapping[Capability, str]:
        """What it cannot do, each with the reason as a sentence for the user."""
        ...

    @property
    def volume_options(self) -> tuple[str, ...]:
        """How mke2fs makes the ext4 of a new volume, beyond what every volume gets."""
        ...

    @property
    def program(self) -> GuestProgram:
        """The C program of this guest; ``skeleton`` and ``initrd`` receive it compiled."""
        ...

    def skeleton(self, program: bytes) -> Tree:
        """The directories and files that the composer puts below every application (mount points, /etc/passwd)."""
        ...

    @property
    def check_rules(self) -> int:
        """Counted up when ``check`` finds other things in the same tree; what it found is kept with a layer."""
        ...

    def check(self, tree: Tree) -> tuple[Finding, ...]:
        """What single files of one layer cannot do in this guest. Depends on the tree alone; reads, runs nothing."""
        ...

    def check_command(self, tree: Tree, command: Command, program: str) -> tuple[Finding, ...]:
        """What a config set cannot do, as far as the application's files (`tree`) show it.

        `program` is the path of what it starts; whether that can be started ``check`` has found.
        """
        ...

    def initrd(self, kernel_files: Mapping[str, bytes], program: bytes) -> bytes | None:
        """The initial RAM disk for a kernel package (path → contents), or None. The same input gives the same bytes."""
        ...

    def plan(
        self, image: Image, files: ImageFiles, config: RunConfig, state: Path, data: tuple[Drive, ...]
    ) -> BootPlan:
        """How `image` boots with `config`.

        `state` is the instance's directory (sockets and logs are named below it), `data` the overlay and volumes,
        which follow the image's own drives. Raises DrumheadError(UNSUPPORTED) for what this guest cannot do.
        """
        ...

    def probe(self, files: ImageFiles) -> ProbeBoot:
        """What is booted to find out whether an accelerator works."""
        ...
