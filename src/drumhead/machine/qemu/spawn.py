"""Starting QEMU itself, and knowing that it runs."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.process import die_with_parent, kill, wait_process
from drumhead.machine.qemu.channel import is_qemu_ready
from drumhead.machine.watch import watching

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.guest.contract import BootPlan

MONITOR = "qmp.sock"
START_TIME = 30.0
"""Seconds that QEMU has to set up its devices before the guest runs; it takes a tenth of one."""


async def spawn(words: list[str], boot: BootPlan, directory: Path, *, attached: bool) -> int:
    """Write the plan's files and start QEMU; returns its process id when its devices are set up.

    Raises GUEST with what QEMU said when it would not start.
    """
    for path, contents in boot.files.items():
        with replacing(path) as temporary:
            temporary.write_bytes(contents)
    (directory / MONITOR).unlink(missing_ok=True)
    pid = _start_process(words, directory, attached=attached)
    answers = asyncio.create_task(_monitor_answers(directory))
    ended = asyncio.create_task(wait_process(pid))
    try:
        async with asyncio.timeout(START_TIME):
            await asyncio.wait({answers, ended}, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        kill(pid)
        raise
    finally:
        answers.cancel()
        ended.cancel()
    if not ended.done():
        return pid
    said = (directory / "qemu.log").read_text(errors="replace").strip().splitlines()[-3:]
    raise DrumheadError(ErrorCode.GUEST, f"QEMU would not start {directory.name}: {' '.join(said) or 'no message'}")


def _start_process(words: list[str], directory: Path, *, attached: bool) -> int:
    program = host.find_program(words[0])
    with (directory / "qemu.log").open("wb") as said:
        process = subprocess.Popen(
            [program, *words[1:]],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # A session of its own: Ctrl-C on our terminal is for us, who then stop the machine in order.
            start_new_session=True,
            preexec_fn=die_with_parent() if attached else None,  # noqa: PLW1509 - it makes one system call
        )
    # From here on the process is known by its id (``wait_process``); its end is nobody's return code.
    process.returncode = 0
    return process.pid


async def _monitor_answers(directory: Path) -> None:
    """QEMU greets when its main loop runs, and that begins when every device is there."""
    with watching(directory) as changed:
        while not socket_exists(directory) or not await is_qemu_ready(directory):
            await changed.wait()
            changed.clear()


def socket_exists(directory: Path) -> bool:
    return (directory / MONITOR).exists()
