"""Which accelerator a host really has: found by booting a kernel under KVM, and remembered until the host's next boot.

/dev/kvm can open, create a machine and a CPU, and then hang at the first instruction, or (nested in a machine without
hardware support) run a few instructions at once and a kernel for minutes. Only a boot tells.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drumhead import host
from drumhead.blobs import replacing
from drumhead.machine.process import die_with_parent
from drumhead.machine.qemu.command_line import PROGRAM, accelerator_arguments

if TYPE_CHECKING:
    from drumhead.guest.contract import ProbeBoot
    from drumhead.home import Home
    from drumhead.machine.records import Accelerator

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MEMORY = "kvm.json"
TIME_LIMIT = 5.0
"""Seconds to boot to the first process. Working KVM takes a third of one, software emulation one or two."""


@dataclass(frozen=True)
class Acceleration:
    """What machines run on, and why, in words for the user."""

    accelerator: Accelerator
    reason: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """cache/kvm.json: an outcome and the circumstances that it holds for."""

    host_boot: str
    qemu: str
    works: bool
    reason: str


async def find_acceleration(home: Home, boot: ProbeBoot) -> Acceleration:
    """KVM where `boot` gets through, else software emulation. The first call after the host's boot really tries."""
    if not os.access(DEVICE, os.F_OK):
        return Acceleration("tcg", f"{DEVICE} is missing")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Acceleration("tcg", f"{DEVICE} is not yours to open (add yourself to the group kvm)")
    host_boot, qemu = _circumstances()
    finding = _recall(home)
    if finding is None or (finding.host_boot, finding.qemu) != (host_boot, qemu):
        reason = await try_boot(boot, "kvm", TIME_LIMIT)
        finding = Finding(host_boot=host_boot, qemu=qemu, works=not reason, reason=reason or "KVM runs on this host")
        with replacing(home.cache / MEMORY) as temporary:
            temporary.write_bytes(msgspec.json.encode(finding))
    return Acceleration("kvm" if finding.works else "tcg", finding.reason)


def _circumstances() -> tuple[str, str]:
    """Return which boot of the host it is, and which QEMU."""
    program = Path(host.find_program(PROGRAM)).resolve()
    found = program.stat()
    return BOOT_ID.read_text().strip(), f"{program} {found.st_size} {found.st_mtime_ns}"


def _recall(home: Home) -> Finding | None:
    try:
        return msgspec.json.decode((home.cache / MEMORY).read_bytes(), type=Finding)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


async def try_boot(boot: ProbeBoot, accelerator: Accelerator, time_limit: float) -> str:
    """Boot and wait for the sign of life. Returns an empty text when it came, else what happened instead."""
    initrd = [] if boot.initrd is None else ["-initrd", str(boot.initrd)]
    process = await asyncio.create_subprocess_exec(
        *[host.find_program(PROGRAM), *accelerator_arguments(accelerator), "-machine", "q35", "-m", "128M"],
        *["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
        *["-kernel", str(boot.kernel), "-append", boot.cmdline, *initrd],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )
    try:
        console, said = await asyncio.wait_for(process.communicate(), time_limit)
    except TimeoutError:
        return f"{DEVICE} opens, but a machine on it does not boot within {time_limit:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if boot.marker.encode() in console:
        return ""
    last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it ended without a word"]
    return f"{DEVICE} opens, but a machine does not boot on it ({last[0]})"
