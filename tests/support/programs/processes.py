"""Run our programs as real processes, and wait for their log lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

TIMEOUT = 60.0
_ONE = min(Path("/usr/share/ca-certificates").rglob("*.crt"), default=None)
FEW_AUTHORITIES = {"SSL_CERT_FILE": str(_ONE)} if _ONE is not None and "SSL_CERT_FILE" in os.environ else {}
"""The environment of programs that connect to no server outside the tests. aiohttp reads all authorities that
SSL_CERT_FILE names when it is imported, which takes a fifth of a program's start."""
_TESTS = Path(__file__).parents[2]


class Program:
    """A process whose JSON log lines are kept and can be awaited."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.output: list[str] = []
        self._more = asyncio.Condition()
        self._ended = False
        self._tasks = [
            asyncio.create_task(self._read_log()),
            asyncio.create_task(self._read_output()),
        ]

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"message": raw.decode(errors="replace").rstrip()}
            async with self._more:
                self.lines.append(line)
                self._more.notify_all()
        async with self._more:
            self._ended = True
            self._more.notify_all()

    async def _read_output(self) -> None:
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            self.output.append(raw.decode(errors="replace").rstrip("\n"))

    async def log(
        self, matches: str | Callable[[dict[str, Any]], bool], *, after: int = 0, timeout: float = TIMEOUT
    ) -> dict[str, Any]:
        """Wait for a log line that contains a text (or satisfies a function) and return it."""
        wanted = matches if callable(matches) else lambda line: matches in line.get("message", "")

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines[after:] if wanted(line)), None)

        async with asyncio.timeout(timeout), self._more:
            await self._more.wait_for(lambda: found() is not None or self._ended)
        line = found()
        assert line is not None, f"{self.name} ended without logging {matches!r}: {self.lines}"
        return line

    async def address(self) -> str:
        """Wait until the service listens; return its URL."""
        return str((await self.log("is listening on"))["address"])

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)

    async def ended(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end; return the exit status."""
        async with asyncio.timeout(timeout):
            status = await self.process.wait()
            await asyncio.gather(*self._tasks)
        return status

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return await self.ended()


@asynccontextmanager
async def program(*argv: str, env: dict[str, str] | None = None, name: str | None = None) -> AsyncIterator[Program]:
    """Run a command; kill the process at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        limit=1 << 20,
    )
    running = Program(name or argv[0], process)
    try:
        yield running
    finally:
        running.send(signal.SIGKILL)
        await running.ended()


def service(
    name: str,
    *argv: str,
    env: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
    module: Sequence[str] | None = None,
) -> Any:
    """Run `python -m safelight.NAME` with JSON logs, on a free port unless told otherwise.

    `prefix` is a command that runs it elsewhere. `module` is a module of the tests that runs it, with its first
    arguments.
    """
    port = () if name == "worker" or "--port" in argv else ("--port", "0")
    last = ("--log-format", "json")  # with several services, for the last one
    if name == "worker":
        last += ("--log-level", "debug")  # with a line for each photo
    env = {**FEW_AUTHORITIES, **(env or {})}
    if module is not None:
        env["PYTHONPATH"] = str(_TESTS)
    command = (sys.executable, "-W", "error", "-m", *(module or (f"safelight.{name}",)), *argv, *port, *last)
    return program(*prefix, *command, env=env, name=name)
