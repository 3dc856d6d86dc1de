"""Find out whether KVM works by booting a kernel under it. The result is cached until the host's next boot.

A host may be able to open /dev/kvm and create a machine and a CPU, and then hang at the first instruction or (nested,
without hardware support) take minutes for a kernel. Only a boot shows whether KVM works.
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
from drumhead.errors import MALFORMED
from drumhead.machine.process import die_with_parent
from drumhead.machine.qemu.command_line import PLAIN, PROGRAM, accelerator_arguments

if TYPE_CHECKING:
    from drumhead.guest.contract import ProbeBoot
    from drumhead.home import Home
    from drumhead.machine.records import Accelerator

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CACHE = "kvm.json"
TIME_LIMIT = 5.0
"""Seconds that a boot to the init process may take. It takes 0.3 s with working KVM, and 1 to 2 s in emulation."""


@dataclass(frozen=True)
class Acceleration:
    """The accelerator for machines, and the reason for choosing it, as text for the user."""

    accelerator: Accelerator
    reason: str


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The record cache/kvm.json: a result, and the boot of the host and the QEMU for which it is valid."""

    host_boot: str
    qemu: str
    works: bool
    reason: str


async def find_acceleration(home: Home, boot: ProbeBoot) -> Acceleration:
    """Return KVM if `boot` succeeds under it, else software emulation. Try KVM once after each boot of the host."""
    if not os.access(DEVICE, os.F_OK):
        return Acceleration("tcg", f"{DEVICE} is missing")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Acceleration("tcg", f"{DEVICE} cannot be opened (add yourself to the group kvm)")
    result = remembered(home)
    if result is None:
        host_boot, qemu = _circumstances()
        reason = await try_boot(boot, "kvm", TIME_LIMIT)
        result = ProbeResult(host_boot=host_boot, qemu=qemu, works=not reason, reason=reason or "KVM runs on this host")
        with replacing(home.cache / CACHE) as temporary:
            temporary.write_bytes(msgspec.json.encode(result))
    return Acceleration("kvm" if result.works else "tcg", result.reason)


def remembered(home: Home) -> ProbeResult | None:
    """Return the result of trying KVM, or None if it was not tried since the host's boot with this QEMU."""
    result = _cached(home)
    return result if result and (result.host_boot, result.qemu) == _circumstances() else None


def _circumstances() -> tuple[str, str]:
    """Return identifiers of the host's boot and of the QEMU program."""
    return BOOT_ID.read_text().strip(), qemu_identity()


def qemu_identity() -> str:
    """Return a text that identifies the QEMU program of this host."""
    program = Path(host.find_program(PROGRAM)).resolve()
    found = program.stat()
    return f"{program} {found.st_size} {found.st_mtime_ns}"


def _cached(home: Home) -> ProbeResult | None:
    try:
        return msgspec.json.decode((home.cache / CACHE).read_bytes(), type=ProbeResult)
    except (OSError, *MALFORMED):  # `drumhead doctor` also looks at homes that cannot be read
        return None


async def try_boot(boot: ProbeBoot, accelerator: Accelerator, time_limit: float) -> str:
    """Boot and wait for the marker. Return an empty string if it appeared, else what happened instead."""
    initrd = [] if boot.initrd is None else ["-initrd", str(boot.initrd)]
    process = await asyncio.create_subprocess_exec(
        *[host.find_program(PROGRAM), *accelerator_arguments(accelerator), "-machine", "q35", "-m", "128M"],
        *[*PLAIN, "-serial", "stdio"],
        *["-kernel", str(boot.kernel), "-append", boot.cmdline, *initrd],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )
    try:
        console, said = await asyncio.wait_for(process.communicate(), time_limit)
    except TimeoutError:
        return f"{DEVICE} can be opened, but a machine does not boot on it within {time_limit:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if boot.marker.encode() in console:
        return ""
    last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it ended without a message"]
    return f"{DEVICE} can be opened, but a machine does not boot on it ({last[0]})"
