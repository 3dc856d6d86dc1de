"""Read a page with console blocks and run its commands.

A block is ```console; `$ ` begins a command, the lines after it are what it must print, in this order (other lines
may stand between them), `…` stands for anything. A command that serves for ever is left running once it printed its
lines; `^C` as the last line interrupts it then and waits for its end.
"""

import asyncio
import contextlib
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SERVES = re.compile(r"safelight (keyvaluestore|db|storage|master|worker)\b|drumhead (run)\b(?!.* -d )")
TIMEOUT = 60.0


@dataclass(frozen=True)
class Step:
    line: int
    command: str
    expected: tuple[str, ...]

    @property
    def serves(self) -> str | None:
        match = _SERVES.match(self.command)
        return match[1] or match[2] if match else None


def steps(page: str) -> list[Step]:
    """Return the commands of a page in order."""
    found: list[Step] = []
    for block in re.finditer(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        first = page.count("\n", 0, block.start(1)) + 1
        for number, text in enumerate(block[1].splitlines(), first):
            if text.startswith("$ "):
                found.append(Step(number, text[2:], ()))
            else:
                last = found[-1]
                found[-1] = Step(last.line, last.command, (*last.expected, text))
    return found


def pattern(expected: str) -> re.Pattern[str]:
    """Return a pattern for an expected line: `…` matches anything, and blanks at the ends are ignored."""
    return re.compile(".*".join(re.escape(part) for part in expected.strip().split("…")))


class Walk:
    """Run the commands of a page in a directory, with an environment that keeps the variables that commands set."""

    def __init__(
        self, directory: Path, environment: dict[str, str], ports: dict[int, int], *, timeout: float = TIMEOUT
    ) -> None:
        """Prepare a walk. `timeout` is the limit in seconds for one command, or for one line of a command that
        serves."""
        self.directory = directory
        self.environment = environment
        self.ports = ports
        self.timeout = timeout
        self._stack = contextlib.AsyncExitStack()
        self._drains: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await asyncio.gather(*self._drains)

    def _here(self, text: str) -> str:
        for written, real in self.ports.items():
            text = text.replace(str(written), str(real))
        return text

    async def do(self, step: Step) -> None:
        """Run a step and compare its output; an AssertionError names its line."""
        if step.serves:
            await self._serve(step)
        else:
            await self._run(step)

    async def _run(self, step: Step) -> None:
        # Each command gets its own shell; the variables that it sets are passed to the next one.
        script = f"{self._here(step.command)}\nstatus=$?\nenv -0 >.environment\nexit $status"
        process = await asyncio.create_subprocess_exec(
            "bash", "-ac", script, cwd=self.directory, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(self.timeout):
            output, _ = await process.communicate()
        printed = output.decode(errors="replace").splitlines()
        assert process.returncode == 0, f"line {step.line}: {step.command} ended with {process.returncode}: {printed}"
        variables = (self.directory / ".environment").read_text().split("\0")
        self.environment = dict(item.split("=", 1) for item in variables if "=" in item)
        position = 0
        for expected in step.expected:
            wanted = pattern(self._here(expected))
            rest = [index for index in range(position, len(printed)) if wanted.search(printed[index].strip())]
            assert rest, f"line {step.line}: {step.command} did not print {expected!r} but {printed}"
            position = rest[0] + 1

    async def _serve(self, step: Step) -> None:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", f"exec {self._here(step.command)}", cwd=self.directory, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self._stack.push_async_callback(_end, process)
        assert process.stdout is not None
        printed: list[str] = []
        for expected in step.expected:
            if expected == "^C":
                process.send_signal(signal.SIGINT)
                async with asyncio.timeout(self.timeout):
                    await process.communicate()
                assert process.returncode == 0, f"line {step.line}: {step.command} ended with {process.returncode}"
                return
            wanted = pattern(self._here(expected))
            try:
                async with asyncio.timeout(self.timeout):
                    while True:
                        text = (await process.stdout.readline()).decode(errors="replace")
                        assert text, f"line {step.line}: {step.command} ended; it printed {printed}"
                        printed.append(text.rstrip())
                        if wanted.search(text.strip()):
                            break
            except TimeoutError:
                raise AssertionError(f"line {step.line}: waited for {expected!r}; printed {printed}") from None
        # Read the rest of its output, so that the pipe does not fill up.
        self._drains.append(asyncio.create_task(_drain(process.stdout)))


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(30):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
