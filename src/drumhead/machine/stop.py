"""Stop machines: ask the command, then kill it; ask QEMU, then kill it. Wait for their end, and delete them."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.instances import STOPPING, status_lines, supervisor_pid
from drumhead.machine.network.names import announce_names
from drumhead.machine.process import kill, wait_process
from drumhead.machine.qemu.channel import control, quit_qemu

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.machine.instances import Instances
    from drumhead.machine.records import Instance

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for the guest's command."""
END_TIME = 10.0
"""Seconds that a guest may take to switch off after its command has ended, and that QEMU may take to quit."""
START_TIME = 30.0
"""Seconds that another command may take until the machine that it starts can be stopped."""
POLL = 0.02
"""Seconds between two looks at the lock of a machine that another command is starting."""
KILLED = 137
"""The exit status of a command killed by SIGKILL, and of one whose machine was switched off."""


async def stop_machine(instances: Instances, name: str, *, grace: float = GRACE, final: bool = True) -> Instance:
    """Send SIGTERM to the command and SIGKILL after `grace` seconds. Switch off a machine that does not answer.

    Leave a machine that has already ended as it is. With `final`, end its supervisor too. Raises NOT_FOUND.
    """
    directory = instances.directory(name)
    if final:
        await _note_stop(instances, name)
    instance = instances.read(name)
    if not instance.pid:
        await _end_supervisor(directory)
        return instances.read(name)
    try:
        await control(directory, {"do": "stop", "grace": grace}, time_limit=END_TIME)
        async with asyncio.timeout(grace + END_TIME):
            await wait_process(instance.pid)
    except (DrumheadError, TimeoutError):
        # A guest that is booting or hangs does not answer.
        await switch_off(instances, name)
    await _wait_start(instances, name)  # the command whose start has just failed lets go of the machine
    await _end_supervisor(directory)
    return instances.read(name)


async def _note_stop(instances: Instances, name: str) -> None:
    """Tell the supervisor not to start a machine again, and wait for the QEMU of a start that has already begun.

    Raises NOT_FOUND, also if the machine is being deleted, and TIMEOUT.
    """
    mark = instances.directory(name) / STOPPING
    instances.read(name)
    try:
        mark.touch()
        await _wait_start(instances, name)
        mark.touch()  # the start has removed it
    except FileNotFoundError:  # another command has just deleted it
        instances.read(name)
        raise


async def _wait_start(instances: Instances, name: str) -> None:
    """Wait until a machine runs, or until no other command is starting it. Raises NOT_FOUND, TIMEOUT."""
    try:
        async with asyncio.timeout(START_TIME):
            while True:
                if instances.read(name).pid or not instances.is_locked(name):
                    return
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        message = f"another command is still starting or deleting {name} after {START_TIME:.0f} s; try again later"
        raise DrumheadError(ErrorCode.TIMEOUT, message) from error


async def _end_supervisor(directory: Path) -> None:
    """Wait until the supervisor has seen the file STOPPING and ended."""
    pid = supervisor_pid(directory)
    if not pid or pid == os.getpid():
        return
    try:
        async with asyncio.timeout(END_TIME):
            await wait_process(pid)
    except TimeoutError:
        # It was starting the machine, which removed the file. On SIGTERM it stops the machine that it started.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        await wait_process(pid)


async def destroy_machine(instances: Instances, name: str) -> Instance:
    """Switch a machine off as if its plug had been pulled, and end its supervisor. Raises NOT_FOUND."""
    directory = instances.directory(name)
    await _note_stop(instances, name)
    await switch_off(instances, name)
    await _wait_start(instances, name)  # the command whose start has just failed lets go of the machine
    await _end_supervisor(directory)
    return instances.read(name)


def stopped_while_starting(name: str) -> DrumheadError:
    """Return the error for a start that another command has ended. A fleet starts the machine again."""
    return DrumheadError(ErrorCode.GUEST, f"another command stopped {name} while it started")


async def delete_machine(instances: Instances, name: str) -> None:
    """Delete a machine, and let its neighbours forget its name. Raises the errors of ``Instances.delete``."""
    launch = instances.read(name).launch
    instances.delete(name)
    await announce_names(instances, launch)


async def switch_off(instances: Instances, name: str) -> None:
    """Switch a machine off; its supervisor may start it again."""
    instance, directory = instances.read(name), instances.directory(name)
    if instance.pid:
        with suppress(OSError):  # a full disk does not keep it running
            # Before its end, because those who wait for that read why it came.
            if not any(line.event == "exit" for line in status_lines(directory / "status")):
                record_exit(directory, KILLED)
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


def record_exit(directory: Path, status: int) -> None:
    """Append the exit event to the status file, because the guest could not write it."""
    with (directory / "status").open("ab") as file:
        file.write(msgspec.json.encode({"event": "exit", "code": status}) + b"\n")


async def wait_machine(instances: Instances, name: str) -> Instance:
    """Wait until a machine has ended. Raises NOT_FOUND."""
    instance = instances.read(name)
    if instance.pid:
        await wait_process(instance.pid)
    return instances.read(name)


def exit_status(instance: Instance) -> int:
    """Return the command's exit status. Raises GUEST if the machine did not report one."""
    if instance.exit_status is None:
        raise DrumheadError(ErrorCode.GUEST, f"{instance.launch.spec.name} failed: {instance.reason}")
    return instance.exit_status
