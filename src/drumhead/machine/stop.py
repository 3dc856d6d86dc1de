"""Stop machines: ask the command, then kill it; ask QEMU, then kill it. Wait for the end of a machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.process import kill, wait_process
from drumhead.machine.qemu.channel import control, quit_qemu

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.machine.instances import Instances
    from drumhead.machine.records import Instance

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for the guest's command."""
END_TIME = 10.0
"""Seconds that a guest has to switch off after its command ended, and that QEMU has to quit."""
KILLED = 137
"""The exit status of a command killed by SIGKILL, and of one whose machine was switched off."""


async def stop_machine(instances: Instances, name: str, *, grace: float = GRACE) -> Instance:
    """Send SIGTERM to the command and SIGKILL after `grace` seconds. A machine that does not answer is switched off.

    A machine that has already ended is left as it is. Raises NOT_FOUND.
    """
    instance = instances.read(name)
    if not instance.pid:
        return instance
    directory = instances.directory(name)
    try:
        await control(directory, {"do": "stop", "grace": grace}, time_limit=END_TIME)
        async with asyncio.timeout(grace + END_TIME):
            await wait_process(instance.pid)
    except (DrumheadError, TimeoutError):
        # A guest that is booting or hangs does not answer.
        return await destroy_machine(instances, name)
    return instances.read(name)


async def destroy_machine(instances: Instances, name: str) -> Instance:
    """Switch a machine off as if its plug had been pulled. Raises NOT_FOUND."""
    instance = instances.read(name)
    if instance.pid:
        directory = instances.directory(name)
        if not await quit_qemu(directory, time_limit=END_TIME / 2):
            kill(instance.pid)
        try:
            async with asyncio.timeout(END_TIME / 2):
                await wait_process(instance.pid)
        except TimeoutError:
            kill(instance.pid)
            await wait_process(instance.pid)
        if instances.read(name).exit_status is None:
            record_exit(directory, KILLED)
    return instances.read(name)


def record_exit(directory: Path, status: int) -> None:
    """Append the last line of the status file in place of the guest, which could not write it."""
    with (directory / "status").open("ab") as file:
        file.write(msgspec.json.encode({"event": "exit", "code": status}) + b"\n")


async def wait_machine(instances: Instances, name: str) -> Instance:
    """Wait until a machine has ended. Raises NOT_FOUND."""
    instance = instances.read(name)
    if instance.pid:
        await wait_process(instance.pid)
    return instances.read(name)


def exit_status(instance: Instance) -> int:
    """Return the command's exit status. Raises GUEST when the machine did not report one."""
    if instance.exit_status is None:
        raise DrumheadError(ErrorCode.GUEST, f"{instance.launch.spec.name} failed: {instance.reason}")
    return instance.exit_status
