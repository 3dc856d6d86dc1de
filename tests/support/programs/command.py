"""Run the `safelight` command as users do."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.programs.forked import popen, run

COMMAND = str(Path(sys.executable).with_name("safelight"))
TIMEOUT = 60.0


def file_limit(size: int) -> list[str]:
    """Return the prefix of a command whose files may have at most `size` bytes, as on a disk that becomes full.

    Python would keep bytecode that the limit has cut, and fail to import it from then on (cpython #126606).
    """
    return ["env", "PYTHONDONTWRITEBYTECODE=1", "prlimit", f"--fsize={size}"]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without variables that would lead the command to another system."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SAFELIGHT_", "COLUMNS", "LINES"))
    }
    return {**kept, "TERM": "xterm-256color", **more}


def safelight(
    *argv: object, cwd: Path | None = None, before: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; `before` is a command prefix."""
    return run([*before, COMMAND, *map(str, argv)], cwd=cwd, env=environment(**env), timeout=TIMEOUT)


class Terminal:
    """A command in a terminal; `shown` is its output including escape codes."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.shown = ""
        self._descriptor = descriptor

    def until(self, satisfied: Callable[[str], bool]) -> str:
        """Read until the output satisfies a condition; fail if the command ends earlier."""
        self._read(satisfied)
        assert satisfied(self.shown), f"it ended before: {self.shown}"
        return self.shown

    def _read(self, satisfied: Callable[[str], bool]) -> None:
        """Read until the output satisfies a condition or the command has ended."""
        deadline = time.monotonic() + TIMEOUT
        while not satisfied(self.shown):
            assert time.monotonic() < deadline, self.shown
            ready, _, _ = select.select([self._descriptor], [], [], 1.0)
            if not ready:
                continue
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # on Linux, the other side of the terminal was closed
                break
            if not data:
                break
            self.shown += data.decode(errors="replace")

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)

    def shows_typing(self) -> bool:
        """Return whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._descriptor)[3] & termios.ECHO)

    def ended(self) -> int:
        """Read the rest of the output; return the exit status."""
        self._read(lambda _: False)
        return self.process.wait(TIMEOUT)


@contextmanager
def terminal(*argv: object, columns: int = 120, lines: int = 30, **env: str) -> Iterator[Terminal]:
    """Run the command in a new terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [COMMAND, *map(str, argv)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**env),
        preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@contextmanager
def everything(data: Path, *argv: object, command: Path | str = COMMAND) -> Iterator[dict[str, Any]]:
    """Run `safelight up` on free ports; yield the addresses that it prints, and stop it cleanly at the end."""
    with (data.parent / f"{data.name}.log").open("w+") as log:
        process = popen(
            [command, "up", "--port", "0", "--json", "--data", str(data), *map(str, argv)],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment(),
        )  # fmt: skip
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
            assert ready, "it did not become ready"
            line = process.stdout.readline()
            assert line, (data.parent / f"{data.name}.log").read_text()
            yield {**json.loads(line), "pid": process.pid}
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
