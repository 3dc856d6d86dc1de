"""Take a snapshot: boot a machine, wait until its interpreter is warm, save its memory and its devices."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from qemu.qmp import QMPError

from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import find_guest, require
from drumhead.guest.contract import WarmConfig
from drumhead.image.store import ImageStore
from drumhead.machine.instances import console_end, status_lines
from drumhead.machine.process import kill, wait_process
from drumhead.machine.qemu.acceleration import find_acceleration
from drumhead.machine.qemu.channel import ignore_shared, monitor, quit_qemu
from drumhead.machine.qemu.command_line import Saved, command_line
from drumhead.machine.qemu.spawn import spawn
from drumhead.machine.snapshot.records import MEMORY, RECORD, STATE, Snapshot, saved_cards, spare_drives, write_spares
from drumhead.machine.snapshot.store import Snapshots, snapshot_key
from drumhead.machine.spec.check import check_memory
from drumhead.machine.watch import watching
from drumhead.text import INDENTED

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.guest import Guest
    from drumhead.home import Home
    from drumhead.machine.records import Accelerator
    from drumhead.records import Image, ImageFiles

WARM_TIME = 300.0
"""Seconds that a machine may take to boot and to import the modules that its image names."""
SAVE_TIME = 120.0
POLL = 0.02
"""Seconds between two queries of QEMU, which saves some hundred kilobytes in 0.1 s."""


async def take_snapshot(home: Home, image: Image, *, memory: int, cpus: int) -> Snapshot:
    """Take a snapshot of an image with `memory` MiB and `cpus` CPUs, or return the existing one.

    Delete older snapshots of the image with these sizes. Raises UNSUPPORTED for guests and images that cannot have
    snapshots, USAGE, GUEST, TIMEOUT, HOST_TOOL, CONFLICT.
    """
    guest = find_guest(image.guest)
    refuse_unsavable(guest, image, memory)
    files = await asyncio.to_thread(ImageStore(home).mounted_files, image)
    acceleration = await find_acceleration(home, guest.probe(files))
    accelerator = acceleration.accelerator
    key = snapshot_key(guest, image, files, memory=memory, cpus=cpus, accelerator=accelerator)
    snapshots = Snapshots(home)
    with snapshots.lock():
        if (known := snapshots.find(key)) is not None:
            return known
        snapshot = Snapshot(
            key=key,
            image=image.name,
            guest=image.guest,
            memory=memory,
            cpus=cpus,
            created_at=time.time(),
            interpreter=guest.warm_interpreter(image),
        )
        directory = snapshots.directory(key)
        snapshots.sweep()
        shutil.rmtree(directory, ignore_errors=True)  # its record may be damaged
        directory.mkdir(mode=0o700)
        try:
            await _boot_and_save(guest, image, files, snapshot, accelerator, directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        for old in snapshots.list():
            same = (old.image, old.guest, old.memory, old.cpus) == (image.name, image.guest, memory, cpus)
            if same and old.key != key:
                snapshots.delete(old.key)
    return snapshot


def refuse_unsavable(guest: Guest, image: Image, memory: int) -> None:
    """Raise UNSUPPORTED or USAGE for a machine that cannot be saved."""
    require(guest, "snapshot")
    if image.overlay_size:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"{image.name} was composed with --size, so each of its machines has its own disk, which a snapshot "
            "cannot hold; compose it without --size, and give its machines a volume",
        )
    check_memory(guest, memory)


async def _boot_and_save(
    guest: Guest, image: Image, files: ImageFiles, snapshot: Snapshot, accelerator: Accelerator, directory: Path
) -> None:
    drives = spare_drives(directory)
    write_spares(drives)
    boot = guest.plan_snapshot(image, files, WarmConfig(warm=snapshot.interpreter), directory, drives)
    memory = directory / MEMORY
    with memory.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(snapshot.memory << 20)
    argv = command_line(
        boot,
        name="snapshot",
        memory=snapshot.memory,
        cpus=snapshot.cpus,
        accelerator=accelerator,
        cards=saved_cards(),
        state=directory,
        saved=Saved(memory=memory),
    )
    pid = await spawn(argv, boot, directory, attached=True)
    try:
        await _wait_warm(pid, image.name, directory)
        await _save(directory, image.name)
    finally:
        if not await quit_qemu(directory, time_limit=5):
            kill(pid)
        await wait_process(pid)
    await asyncio.to_thread(_publish, snapshot, directory)


async def _wait_warm(pid: int, name: str, directory: Path) -> None:
    """Wait until the guest reports that it is warm. Raises GUEST with its last output, TIMEOUT."""
    ended = asyncio.create_task(wait_process(pid))
    try:
        with watching(directory) as changed:
            async with asyncio.timeout(WARM_TIME):
                while True:
                    events = {line.event: line.reason for line in status_lines(directory / "status")}
                    if "warm" in events:
                        return
                    if "failed" in events or ended.done():
                        raise DrumheadError(ErrorCode.GUEST, _failure(name, events.get("failed", ""), directory))
                    wake = asyncio.create_task(changed.wait())
                    await asyncio.wait({wake, ended}, return_when=asyncio.FIRST_COMPLETED)
                    wake.cancel()
                    changed.clear()
    except TimeoutError as error:
        raise DrumheadError(
            ErrorCode.TIMEOUT, f"{name} was not warm within {WARM_TIME:.0f} s{console_end(directory)}"
        ) from error
    finally:
        ended.cancel()


def _failure(name: str, reason: str, directory: Path) -> str:
    log = directory / "log"
    lines = log.read_text(errors="replace").strip().splitlines()[-4:] if log.exists() else []
    said = "".join(f"{INDENTED}{line[:160]}" for line in lines)
    if said:
        return f"no snapshot of {name}: {reason or 'its machine ended'}; it wrote:{said}"
    return (
        f"no snapshot of {name}: {reason or 'its machine ended; it may need more memory (-m)'}{console_end(directory)}"
    )


async def _save(directory: Path, name: str) -> None:
    """Write the state of the devices, which stops the machine for good. Its memory is already a file."""
    try:
        async with asyncio.timeout(SAVE_TIME), monitor(directory) as client:
            await ignore_shared(client)
            await client.execute("migrate", {"uri": f"exec:cat >{STATE}"})  # QEMU works in `directory`
            while True:
                answer = await client.execute("query-migrate")
                assert isinstance(answer, dict)
                match answer.get("status"):
                    case "completed":
                        return
                    case "failed" | "cancelled":
                        reason = answer.get("error-desc", "no reason given")
                        raise DrumheadError(ErrorCode.GUEST, f"QEMU could not save {name}: {reason}")
                await asyncio.sleep(POLL)
    except (QMPError, OSError, EOFError) as error:
        raise DrumheadError(ErrorCode.GUEST, f"QEMU ended while it saved {name} ({error})") from error
    except TimeoutError as error:
        raise DrumheadError(ErrorCode.TIMEOUT, f"{name} was not saved within {SAVE_TIME:.0f} s") from error


def _publish(snapshot: Snapshot, directory: Path) -> None:
    """Delete all files that a resume does not need, flush the others, and write the record last."""
    for path in directory.iterdir():
        if path.name not in {MEMORY, STATE}:
            path.unlink()
    for name in (MEMORY, STATE):
        handle = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(OSError):
            os.fchmod(handle, 0o600)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    with replacing(directory / RECORD, mode=0o600) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(snapshot)))
