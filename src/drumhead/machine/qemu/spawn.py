"""Start the QEMU process and wait until it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.machine.process import die_with_parent, kill, wait_process
from drumhead.machine.qemu.backlog import raise_backlogs
from drumhead.machine.qemu.channel import is_qemu_ready
from drumhead.machine.watch import watching

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.guest.contract import BootPlan

log = logging.getLogger(__name__)

MONITOR = "qmp.sock"
LOCKED = re.compile(r'Failed to get (?:shared )?"\w+" lock.*\[(.+)\]')
HUGE_PAGES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
"""Settings with which glibc asks for huge pages. The emulator looks translated blocks up in a table of several
megabytes. In small pages, that took half of an idle machine's processor time and a tenth of that of a start.
"""
START_TIME = 30.0
"""Seconds that QEMU may take to set up its devices before the guest runs. It takes 0.1 s."""


async def spawn(
    argv: list[str], boot: BootPlan, directory: Path, *, attached: bool, inherited: tuple[int, ...] = ()
) -> int:
    """Write the plan's files and start QEMU. Return its process id when its devices are set up.

    QEMU inherits the descriptors `inherited`. Raises GUEST with QEMU's message if it does not start, CONFLICT if
    another program uses one of its disks, TIMEOUT.
    """
    for path, contents in boot.files.items():
        with replacing(path, mode=0o600) as temporary:  # the machine's configuration may hold secrets
            temporary.write_bytes(contents)
    (directory / MONITOR).unlink(missing_ok=True)
    pid = _start_process(argv, directory, attached=attached, inherited=inherited)
    answers = asyncio.create_task(_monitor_answers(directory))
    ended = asyncio.create_task(wait_process(pid))
    try:
        async with asyncio.timeout(START_TIME):
            await asyncio.wait({answers, ended}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError as error:
        kill(pid)
        message = f"QEMU did not set up the devices of {directory.name} within {START_TIME:.0f} s"
        raise DrumheadError(ErrorCode.TIMEOUT, message) from error
    except BaseException:
        kill(pid)
        raise
    finally:
        answers.cancel()
        ended.cancel()
    if not ended.done():
        if failure := answers.exception():
            kill(pid)
            raise failure
        raise_backlogs(pid)
        return pid
    raise start_failure(directory.name, last_words(directory))


def start_failure(name: str, said: str) -> DrumheadError:
    """Return the error for a QEMU that did not start and `said` why."""
    taken = LOCKED.search(said)
    if taken:
        return DrumheadError(
            ErrorCode.CONFLICT, f"{name} did not start, because another program uses the disk {taken[1]}; stop it first"
        )
    if "set up guest memory" in said:
        return DrumheadError(
            ErrorCode.GUEST, f"{name} did not start, because this host does not have that much memory; give less (-m)"
        )
    return DrumheadError(ErrorCode.GUEST, f"QEMU could not start {name}: {said}")


def last_words(directory: Path) -> str:
    """Return the last lines that QEMU has written about a machine."""
    said = (directory / "qemu.log").read_text(errors="replace").strip().splitlines()[-3:]
    return " ".join(said) or "no message"


def _start_process(argv: list[str], directory: Path, *, attached: bool, inherited: tuple[int, ...]) -> int:
    program = host.find_program(argv[0])
    tunables = ":".join(filter(None, (HUGE_PAGES, os.environ.get("GLIBC_TUNABLES"))))
    log.info("$ %s", shlex.join(argv))
    with (directory / "qemu.log").open("wb") as said:
        process = subprocess.Popen(
            [program, *argv[1:]],
            cwd=directory,
            env={**os.environ, "GLIBC_TUNABLES": tunables},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # In its own session QEMU does not receive Ctrl-C. This process does, and stops the machine cleanly.
            start_new_session=True,
            pass_fds=inherited,
            preexec_fn=die_with_parent() if attached else None,  # noqa: PLW1509 - it makes one system call
        )
    # From here on only the process id is used (``wait_process``), so Popen must not wait for the process.
    process.returncode = 0
    return process.pid


async def _monitor_answers(directory: Path) -> None:
    """Wait until QEMU's monitor greets. Its main loop then runs and every device exists."""
    with watching(directory) as changed:
        while not socket_exists(directory) or not await is_qemu_ready(directory):
            await changed.wait()
            changed.clear()


def socket_exists(directory: Path) -> bool:
    return (directory / MONITOR).exists()
