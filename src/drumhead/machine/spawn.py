"""Starting QEMU itself, and knowing that it runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.channel import greet_qemu
from drumhead.machine.process import die_with_parent
from drumhead.machine.watch import watching

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.guest.contract import BootPlan

MONITOR = "qmp.sock"
START_TIME = 30.0
"""Seconds that QEMU has to set up its devices before the guest runs; it takes a tenth of one."""


async def spawn(words: list[str], boot: BootPlan, directory: Path, *, attached: bool) -> asyncio.subprocess.Process:
    """Write the plan's files and start QEMU; returns when its devices are set up. Raises GUEST with what it said."""
    for path, contents in boot.files.items():
        with replacing(path) as temporary:
            temporary.write_bytes(contents)
    (directory / MONITOR).unlink(missing_ok=True)
    process = await _start_process(words, directory, attached=attached)
    try:
        async with asyncio.timeout(START_TIME):
            answers = asyncio.create_task(_monitor_answers(directory))
            ended = asyncio.create_task(process.wait())
            await asyncio.wait({answers, ended}, return_when=asyncio.FIRST_COMPLETED)
            answers.cancel()
            if not ended.done():
                ended.cancel()
                return process
    except BaseException:
        process.kill()
        await process.wait()
        raise
    said = (directory / "qemu.log").read_text(errors="replace").strip().splitlines()[-3:]
    raise DrumheadError(ErrorCode.GUEST, f"QEMU would not start {directory.name}: {' '.join(said) or 'no message'}")


async def _start_process(words: list[str], directory: Path, *, attached: bool) -> asyncio.subprocess.Process:
    program = host.find_program(words[0])
    with (directory / "qemu.log").open("wb") as said:
        return await asyncio.create_subprocess_exec(
            *[program, *words[1:]],
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # A session of its own: Ctrl-C on our terminal is for us, who then stop the machine in order.
            start_new_session=True,
            preexec_fn=die_with_parent() if attached else None,
        )


async def _monitor_answers(directory: Path) -> None:
    """QEMU greets when its main loop runs, and that begins when every device is there."""
    with watching(directory) as changed:
        while not socket_exists(directory) or not await greet_qemu(directory):
            await changed.wait()
            changed.clear()


def socket_exists(directory: Path) -> bool:
    return (directory / MONITOR).exists()
