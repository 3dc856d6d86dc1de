"""Implement ``guest.contract.Guest`` for OSv."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.root import root_disk
from drumhead.filesystem.rofs.writer import rofs_bytes
from drumhead.guest.contract import (
    BootPlan,
    Capability,
    Channel,
    Drive,
    Finding,
    GuestProgram,
    ProbeBoot,
    RunConfig,
    WarmConfig,
)
from drumhead.guest.osv import program
from drumhead.guest.osv.check import check_command, check_tree
from drumhead.guest.osv.cmdline import command_line, option
from drumhead.guest.osv.skeleton import CONFIG_MOUNT, PRELOAD, PRELOAD_PROGRAM, skeleton
from drumhead.records import Command
from drumhead.tree import Tree

if TYPE_CHECKING:
    from drumhead.records import Filesystem, GuestName, Image, ImageFiles

LOADER = "/lib64/ld-linux-x86-64.so.2"
"""The loader of Debian's libc, which programs use. OSv only has to provide Linux's system calls."""
DATA = "/data"
OPTIONS = (option("rootfs", "rofs"), option("power-off-on-abort"), option("noinit"), option("console", "serial"))
PROBE_OPTIONS = (option("power-off-on-abort"), option("nomount"), option("noinit"))
LEAST_MEMORY = 48
"""The least memory in MiB with which a Python program has answered."""
CACHE_MEMORY = 96
"""The memory in MiB from which OSv may cache its root. The cache takes 20 MB and makes a boot 14 % faster."""
UNMANAGED = b'{"event":"started","reason":"the machine ended; OSv reports the exit status of Python programs only"}\n'
"""The status file of a program that cannot report. The program counts as running while its machine runs."""
VOLUME_OPTIONS = (
    "-b",
    "4096",
    "-O",
    "^extent,^dir_index,^metadata_csum,^64bit,^resize_inode",
    "-E",
    "assume_storage_prezeroed=1,lazy_journal_init=1,nodiscard",
)
"""OSv writes no journal. Without extents and indexed directories, written data never moves, so flushed data survives a
power cut. The journal serves a Linux machine that uses the volume later. OSv caches 32 blocks of directories and
inodes. The small blocks that mke2fs chooses for small disks would make this cache too small.
"""
UNSUPPORTED: dict[Capability, str] = {
    "snapshot": "OSv machines have no snapshots: they read their configuration at boot, which takes only a second",
    "listening": "OSv machines cannot sleep: the host cannot ask whether their program listens yet",
    "ipv6": "OSv has no IPv6: its machines have IPv4 addresses only",
    "exec": "OSv is one process: no other program can run beside the command",
    "shell": "OSv is one process: there is no shell on its console",
    "overlay": "OSv has no overlay: give the machine a volume (--volume NAME:/data), or let it write to /tmp and /run",
    "readonly-volume": "OSv's ext4 cannot mount a disk read-only",
    "second-volume": "OSv's ext4 mounts one disk at a time",
    "qcow2-volume": "the host checks a volume before OSv mounts it, and can check raw disks only",
    "holes": "in OSv's ext4, writes into a hole of a file overwrite the superblock",
}


class OsvGuest:
    """The OSv guest; see ``guest.contract.Guest``."""

    @property
    def name(self) -> GuestName:
        return "osv"

    @property
    def filesystems(self) -> tuple[Filesystem, ...]:
        return ("rofs",)

    @property
    def unsupported(self) -> Mapping[Capability, str]:
        return UNSUPPORTED

    @property
    def least_memory(self) -> int:
        return LEAST_MEMORY

    @property
    def volume_options(self) -> tuple[str, ...]:
        return VOLUME_OPTIONS

    @property
    def program(self) -> GuestProgram:
        return PRELOAD_PROGRAM

    def skeleton(self, program: bytes) -> Tree:
        return skeleton(program)

    @property
    def check_rules(self) -> int:
        return 1

    def check(self, tree: Tree) -> tuple[Finding, ...]:
        return tuple(check_tree(tree))

    def check_command(self, tree: Tree, command: Command, program: str) -> tuple[Finding, ...]:
        return tuple(check_command(tree, command, program))

    def initrd(self, kernel_files: Mapping[str, bytes], program: bytes) -> bytes | None:  # noqa: ARG002 - OSv has none
        return None

    def plan(
        self,
        image: Image,  # noqa: ARG002 - the files are enough
        files: ImageFiles,
        config: RunConfig,
        state: Path,
        data: tuple[Drive, ...],
    ) -> BootPlan:
        """Plan the disks in the order by which OSv identifies them: root, configuration, then `data`."""
        root, settings = state / "root.vmdk", state / "config.rofs"
        start = program.plan_start(config)
        preload = ("--preload", PRELOAD) if config.mounts else ()
        return BootPlan(
            kernel=files.kernel,
            initrd=None,
            cmdline=command_line(
                [*self._options(config), *_mounts(config, start), *start.options],
                start.environment,
                [LOADER, *preload, *start.argv],
            ),
            drives=(
                Drive(path=root, format="vmdk", serial="root", readonly=True),
                Drive(path=settings, format="raw", serial="config", readonly=True),
                # OSv's ext4 never flushes the disk, so fsync needs writethrough.
                *(msgspec.structs.replace(drive, writethrough=True) for drive in data),
            ),
            channels=channels(state) if start.managed else (),
            console="console" if start.managed else "log",
            files={
                root: root_disk(files.layers),
                settings: rofs_bytes(program.config_tree(config, start)),
                **({} if start.managed else {state / "status": UNMANAGED}),
            },
        )

    def _options(self, config: RunConfig) -> list[str]:
        options = list(OPTIONS)
        if config.memory < CACHE_MEMORY:
            options.append(option("disable_rofs_cache"))
        # A fixed address turns off DHCP for all cards.
        if program.addresses_are_fixed(config):
            for number, card in enumerate(config.nics):
                interface = ipaddress.IPv4Interface(card.address)
                options.append(option("ip", f"eth{number},{interface.ip},{interface.netmask}"))
                options += [option("defaultgw", card.gateway)] if card.gateway else []
                options += [option("nameserver", card.nameserver)] if card.nameserver else []
        return options

    def plan_snapshot(
        self,
        image: Image,  # noqa: ARG002
        files: ImageFiles,  # noqa: ARG002
        config: WarmConfig | None,  # noqa: ARG002
        state: Path,  # noqa: ARG002
        data: tuple[Drive, ...],  # noqa: ARG002
    ) -> BootPlan:
        raise DrumheadError(ErrorCode.UNSUPPORTED, UNSUPPORTED["snapshot"])

    def warm_interpreter(self, image: Image) -> Command:  # noqa: ARG002
        return Command(argv=())

    def warm_order(self, warm: Command, command: Command) -> str:  # noqa: ARG002
        return ""

    def probe(self, files: ImageFiles) -> ProbeBoot:
        # OSv prints its version, finds no root and no program, and switches off.
        return ProbeBoot(kernel=files.kernel, initrd=None, cmdline=" ".join(PROBE_OPTIONS), marker="OSv v")


def _mounts(config: RunConfig, start: program.Start) -> list[str]:
    """Return the mount options: configuration, volumes in the order of disks, and /data in memory if it is no
    volume.
    """
    first = option("mount-fs", f"rofs,/dev/vblk1,{CONFIG_MOUNT if start.managed else program.OWN_FILES}")
    mounts = [option("mount-fs", f"ext,/dev/vblk{2 + n},{mount.path}") for n, mount in enumerate(config.mounts)]
    if not any(mount.path == DATA or mount.path.startswith(f"{DATA}/") for mount in config.mounts):
        mounts.append(option("mount-fs", f"ramfs,ramfs,{DATA}"))
    return [first, *mounts]


def channels(state: Path) -> tuple[Channel, ...]:
    """Return the channels to which the start program connects."""
    return (
        Channel(name="log", kind="file", path=state / "log", port=program.PORTS["log"]),
        Channel(name="status", kind="file", path=state / "status", port=program.PORTS["status"]),
        Channel(name="control", kind="socket", path=state / "control.sock", port=program.PORTS["control"]),
    )
