"""Run our programs as real processes, and wait for their log lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.programs.forked import popen
from support.programs.pids import gone

TIMEOUT = 60.0
_TESTS = Path(__file__).parents[2]


class Program:
    """A process whose JSON log lines are kept and can be awaited."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
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
        async for raw in _lines(self.process.stderr):
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
        async for raw in _lines(self.process.stdout):
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
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self.process.send_signal(number)

    async def ended(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end; return the exit status."""
        await gone(self.process.pid, timeout)
        async with asyncio.timeout(timeout):
            await asyncio.gather(*self._tasks)
        return self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send(number)
        return await self.ended()


async def _lines(pipe: Any) -> AsyncIterator[bytes]:
    """Read lines from a pipe until its other side is closed."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        async for line in reader:
            yield line
    finally:
        transport.close()


@asynccontextmanager
async def program(*argv: str, env: dict[str, str] | None = None, name: str | None = None) -> AsyncIterator[Program]:
    """Run a command; kill the process at the end if it still runs."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
    process = popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
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
    if module is not None:
        env = {**(env or {}), "PYTHONPATH": str(_TESTS)}
    command = (sys.executable, "-W", "error", "-m", *(module or (f"safelight.{name}",)), *argv, *port, *last)
    return program(*prefix, *command, env=env, name=name)
