"""Run programs of the host, with a log line for each and a helpful error if one is missing or fails."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode, host_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tool:
    """A program that drumhead runs on the host: the Debian package that has it, and what it is for."""

    package: str
    purpose: str
    needed: bool = True
    """Whether composing images or running machines needs it; other tools are needed for rarer tasks only."""


TOOLS = {
    "qemu-system-x86_64": Tool("qemu-system-x86", "running machines"),
    "mke2fs": Tool("e2fsprogs", "creating volumes and disks for writes"),
    "e2fsck": Tool("e2fsprogs", "repairing volumes"),
    "resize2fs": Tool("e2fsprogs", "enlarging volumes", needed=False),
    "debugfs": Tool("e2fsprogs", "volumes of OSv machines", needed=False),
    "mksquashfs": Tool("squashfs-tools", "composing images"),
    "unsquashfs": Tool("squashfs-tools", "package collect, containers", needed=False),
    "musl-gcc": Tool("musl-tools", "compiling the init program of guests"),
    "gpgv": Tool("gpgv", "verifying Debian's signatures when building packages"),
    "apt-get": Tool("apt", "finding this host's Debian mirror", needed=False),
    "mkfs.erofs": Tool("erofs-utils", "composing with --fs erofs", needed=False),
    "qemu-img": Tool("qemu-utils", "exporting disks", needed=False),
    "sfdisk": Tool("fdisk", "exporting disks", needed=False),
    "mkfs.vfat": Tool("dosfstools", "exporting disks", needed=False),
    "mcopy": Tool("mtools", "exporting disks", needed=False),
    "mmd": Tool("mtools", "exporting disks", needed=False),
    "syslinux": Tool("syslinux", "exporting disks", needed=False),
}
"""Programs by name; ``drumhead doctor`` looks for all of them."""

VERSION_LINE = re.compile(r"^[\w.]+ \d[\d.]* \(.*\)$", re.MULTILINE)
"""What e2fsck writes to stderr before anything else. The reasons for a failure are in its stdout."""
NOTHING_SAID = "it did not say why"

_running: set[subprocess.Popen[bytes]] = set()


def find_program(name: str) -> str:
    """Return the absolute path of a program in PATH (or in sbin, which a user's PATH may lack). Raises HOST_TOOL."""
    found = look_for(name)
    if found is None:
        package = TOOLS[name].package if name in TOOLS else name
        raise DrumheadError(
            ErrorCode.HOST_TOOL,
            f"{name} is not installed on this host; install it (Debian: apt-get install {package}). "
            "`drumhead doctor` lists other missing programs",
        )
    return found


def look_for(name: str) -> str | None:
    """Return the absolute path of a program in PATH or in sbin, or None if there is none."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def run(
    command: Sequence[str | Path],
    *,
    feed: Callable[[IO[bytes]], object] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 600,
    accepted: tuple[int, ...] = (0,),
    reason: Callable[[str], str] = lambda output: joined(output),  # noqa: PLW0108 - it is defined below
) -> bytes:
    """Run a program to its end and return its stdout. This blocks, so call it in a thread.

    `feed` writes to the program's stdin. Raises HOST_TOOL if the program is missing, ends with a status that is not
    `accepted` or takes longer than `timeout` seconds. `reason` shortens its output to what the error says.
    """
    argv = [find_program(str(command[0])), *map(str, command[1:])]
    log.info("$ %s", shlex.join(argv))
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if feed is not None else subprocess.PIPE,
        env=env,
        cwd=cwd,
    ) as process:
        _running.add(process)
        try:
            if feed is not None:
                _feed(process, feed)
            out, err = process.communicate(timeout=timeout)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise DrumheadError(ErrorCode.HOST_TOOL, f"{argv[0]} did not end within {timeout:.0f} s") from error
            raise
        finally:
            _running.discard(process)
    if process.returncode not in accepted:
        raise _failure(argv[0], process.returncode, _last_words(out, err), reason)
    return out


def _last_words(out: bytes, err: bytes | None) -> str:
    """Return why a program failed: its stderr or, if this has nothing but the program's version, its stdout."""
    told = VERSION_LINE.sub("", (err or b"").decode(errors="replace"))
    return told if told.strip() else out.decode(errors="replace")


def _failure(program: str, status: int, said: str, reason: Callable[[str], str]) -> DrumheadError:
    """Return the error for a program that failed and `said` why."""
    if os.strerror(errno.ENOSPC).lower() in said.lower():  # npm begins it with a small letter
        return host_error(OSError(errno.ENOSPC, f"{program}: {os.strerror(errno.ENOSPC)}"))
    return DrumheadError(ErrorCode.HOST_TOOL, f"{program} failed with status {status}: {reason(said) or NOTHING_SAID}")


def joined(output: str) -> str:
    """Return the end of a program's output as one line, of at most 2,000 characters."""
    return " ".join(output.split()).replace(" cause: ", ": ")[-2000:]


def kill_all() -> None:
    """Kill the programs that threads of this process wait for, before the process ends without waiting for the
    threads.
    """
    for process in tuple(_running):
        process.kill()


def _feed(process: subprocess.Popen[bytes], feed: Callable[[IO[bytes]], object]) -> None:
    """Let `feed` write to the program's stdin. Ignore a program that ends early; its exit status is checked later."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        feed(process.stdin)
    process.stdin = None
