"""Implement ``guest.contract.Guest`` for Linux."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zstandard

from drumhead.elf import MAGIC, is_foreign
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest.contract import (
    SESSIONS,
    BootPlan,
    Capability,
    Channel,
    Drive,
    Finding,
    GuestProgram,
    ProbeBoot,
    RunConfig,
    WarmConfig,
    exec_channel,
)
from drumhead.guest.linux import cpio, warm
from drumhead.guest.linux.program import INIT
from drumhead.guest.linux.skeleton import skeleton

if TYPE_CHECKING:
    from drumhead.records import Command, Filesystem, GuestName, Image, ImageFiles
    from drumhead.tree import Tree

CMDLINE = (
    "console=ttyS0 quiet loglevel=4 reboot=t panic=-1 i8042.noaux i8042.nokbd audit=0 apparmor=0 "
    "lockdown=confidentiality no_timer_check cryptomgr.notests"
)
"""A reset ends QEMU (-no-reboot), so a machine ends when its init ends or the kernel panics. In lockdown the kernel
creates no tracing files, which saves 10 MB of memory and 0.2 s of every boot. Without no_timer_check the kernel panics
if the timer does not tick at once, which may only mean that a busy host runs QEMU late; under KVM it skips that check
by itself. Without cryptomgr.notests it tests every cipher at each boot, which takes a fifth of the time until init
runs.
"""
LEAST_MEMORY = 72
"""Measured with QEMU 7.2: a machine with 48 MiB ends before the kernel's first line, and one with 56 MiB never reaches
init. With 64 MiB a program has 5 MB, with 72 MiB 12 MB; with 3 MB, about one start in twenty ran out of memory. QEMU
10.0.13 has longer queues, for which the kernel takes some 20 MB more; init then ends a machine that is too small.
"""
MAX_LAYERS = 32


class LinuxGuest:
    """The Linux guest; see ``guest.contract.Guest``."""

    @property
    def name(self) -> GuestName:
        return "linux"

    @property
    def filesystems(self) -> tuple[Filesystem, ...]:
        return ("squashfs", "erofs")

    @property
    def unsupported(self) -> Mapping[Capability, str]:
        return {}

    @property
    def least_memory(self) -> int:
        return LEAST_MEMORY

    @property
    def volume_options(self) -> tuple[str, ...]:
        return ("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")

    @property
    def program(self) -> GuestProgram:
        return INIT

    def skeleton(self, program: bytes) -> Tree:  # noqa: ARG002 - it is in the initrd
        return skeleton()

    @property
    def check_rules(self) -> int:
        return 1

    def check(self, tree: Tree) -> tuple[Finding, ...]:
        """Find programs and libraries for other processors. (``drumhead.closure`` finds missing libraries.)"""
        return tuple(
            Finding(path=path, severity="program", sentence="is made for a processor other than x86-64")
            for path, entry in tree
            if entry.kind == "file" and entry.starts_with(MAGIC) and is_foreign(entry.read())
        )

    def check_command(self, tree: Tree, command: Command, program: str) -> tuple[Finding, ...]:  # noqa: ARG002
        return ()

    def initrd(self, kernel_files: Mapping[str, bytes], program: bytes) -> bytes | None:
        entries = [
            cpio.directory("dev"),
            cpio.character_device("dev/console", 5, 1),
            cpio.directory("modules"),
            cpio.regular("init", program, 0o755),
        ]
        modules = [path for path in sorted(kernel_files) if path.startswith("modules/")]
        entries.extend(cpio.regular(path, kernel_files[path]) for path in modules)
        # With a checksum, the kernel reports an archive that was damaged in memory.
        return zstandard.ZstdCompressor(level=19, write_checksum=True).compress(cpio.write_cpio(entries))

    def plan(
        self, image: Image, files: ImageFiles, config: RunConfig, state: Path, data: tuple[Drive, ...]
    ) -> BootPlan:
        initrd = state / "initrd"
        plan = self._plan(image, files, initrd, state, data)
        return msgspec.structs.replace(plan, files={initrd: with_config(_read_initrd(files), config)})

    def plan_snapshot(
        self, image: Image, files: ImageFiles, config: WarmConfig | None, state: Path, data: tuple[Drive, ...]
    ) -> BootPlan:
        if config is None:
            return self._plan(image, files, files.initrd, state, data)
        initrd = state / "initrd"
        plan = self._plan(image, files, initrd, state, data)
        return msgspec.structs.replace(plan, files={initrd: with_config(_read_initrd(files), config)})

    def warm_interpreter(self, image: Image) -> Command:
        return warm.interpreter(image)

    def warm_order(self, warm_interpreter: Command, command: Command) -> str:
        return warm.order(warm_interpreter, command)

    def _plan(
        self, image: Image, files: ImageFiles, initrd: Path | None, state: Path, data: tuple[Drive, ...]
    ) -> BootPlan:
        if files.initrd is None or not files.layers or len(files.layers) > MAX_LAYERS:
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"{image.name} has {len(files.layers)} layers; a Linux machine has an initrd and 1 to 32 layers",
            )
        layers = tuple(
            Drive(path=path, format="raw", serial=f"layer-{number}", readonly=True)
            for number, path in enumerate(files.layers)
        )
        return BootPlan(
            kernel=files.kernel,
            initrd=initrd,
            cmdline=CMDLINE,
            drives=layers + data,
            channels=channels(state),
        )

    def probe(self, files: ImageFiles) -> ProbeBoot:
        return ProbeBoot(
            kernel=files.kernel, initrd=files.initrd, cmdline=f"{CMDLINE} -- probe", marker="drumhead: booted"
        )


def channels(state: Path) -> tuple[Channel, ...]:
    """Return the channels of a machine. `status` comes last: once it exists, the init knows that all exist."""
    return (
        Channel(name="org.drumhead.log", kind="file", path=state / "log"),
        Channel(name="org.drumhead.control", kind="socket", path=state / "control.sock"),
        *(exec_channel(state, number) for number in range(SESSIONS)),
        Channel(name="org.drumhead.status", kind="file", path=state / "status"),
    )


def _read_initrd(files: ImageFiles) -> bytes:
    assert files.initrd is not None, "_plan has refused images without one"
    return files.initrd.read_bytes()


def with_config(initrd: bytes, config: RunConfig | WarmConfig) -> bytes:
    """Return an initrd followed by a second archive with the configuration of one machine."""
    archive = cpio.write_cpio(
        [cpio.directory("drumhead"), cpio.regular("drumhead/config.json", msgspec.json.encode(config), 0o600)]
    )
    return initrd + bytes(-len(initrd) % 4) + archive
