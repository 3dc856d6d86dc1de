"""Supervise a child process: start it, forward its log, restart it when it dies, and stop it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from safelight.errors import FAILED

log = logging.getLogger("up")

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_GOOD_RUN = 30.0
"""Seconds after which a child counts as healthy, so that its next restart has a short delay again."""
_FIRST_ATTEMPTS = 5
"""How often a child that has never been healthy may fail in a row, in about ten seconds, before all is given up."""
_PR_SET_PDEATHSIG = 1
_USAGE = 2
"""The exit status of a program whose settings are wrong."""


class Child:
    """One program. `name` is unique; `kind` says which program it is."""

    def __init__(self, name: str, kind: str, argv: Sequence[str], forward: Callable[[str, str], None]) -> None:
        self.name = name
        self.kind = kind
        self._argv = argv
        self._forward = forward
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = asyncio.Event()

    async def supervise(self, give_up: Callable[[int], None]) -> None:
        """Run it and restart it until `stop`.

        Call `give_up` with its exit status if it cannot start: at once if its settings are wrong, otherwise after
        several attempts. A child that was healthy once is always restarted, and so is one that a signal ended.
        """
        delay = _FIRST_DELAY
        first, was_healthy, failures = True, False, 0
        while not self._stopped.is_set():
            start = time.monotonic()
            status = await self._once()
            if self._stopped.is_set():
                break
            if time.monotonic() - start > _GOOD_RUN:
                delay, was_healthy = _FIRST_DELAY, True
            failures = failures + 1 if status > 0 else 0
            if first and status == _USAGE:
                give_up(status)
                break
            if failures == _FIRST_ATTEMPTS and not was_healthy:
                log.error("%s %s each time it was started; giving up", self.name, ended(status))
                give_up(status)
                break
            first = False
            log.warning("%s %s; starting it again in %.1f s", self.name, ended(status), delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def stop(self, timeout: float) -> None:
        """Ask it to stop, and kill it if it has not stopped after `timeout` seconds."""
        self._stopped.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            log.warning("%s did not stop within %.0f s; killing it", self.name, timeout)
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._stopped.set()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def _once(self) -> int:
        """Run it once and return its exit status, or 1 if the system could not start it, such as for lack of memory."""
        try:
            self._process = process = await self._start()
        except (OSError, subprocess.SubprocessError) as error:
            log.error("%s cannot be started: %s", self.name, getattr(error, "strerror", None) or error)  # noqa: TRY400 - that says it all
            return FAILED
        if self._stopped.is_set():  # stopped while it was being started
            process.kill()
        assert process.stdout is not None
        await self._forward_lines(process.stdout)
        return await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            env=_environment(),
            process_group=0,  # only this program receives Ctrl-C, and it stops its children in order
            preexec_fn=die_with_parent(os.getpid()),
        )

    async def _forward_lines(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await output.readline()
            except ValueError:  # the part of a line that reached the limit is dropped
                continue
            if not line:
                return
            self._forward(self.name, line.decode(errors="replace").rstrip("\n"))


def ended(status: int) -> str:
    """Describe how a program ended."""
    if status < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _environment() -> dict[str, str]:
    # These variables tell the command which key-value store to use, not the services that we run.
    inherited = {name: value for name, value in os.environ.items() if name != "SAFELIGHT_KEYVALUESTORE"}
    return {**inherited, "PYTHONUNBUFFERED": "1"}


def die_with_parent(parent: int) -> Callable[[], None] | None:
    """Make the kernel kill a child when this process ends in any way (Linux)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before prctl took effect
            os._exit(1)

    return ask
