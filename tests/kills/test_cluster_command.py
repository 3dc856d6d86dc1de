"""`scripts/cluster`, by which people try a distributed system: what it prints, kills, a clean stop, the next start."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from safelight.client.master import Client
from safelight.wire import State
from support.photos import is_inverse, photo
from support.servers.cluster import postgres_directory

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LIMIT = 180.0


class Command:
    """The running command, and the lines that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, text: str) -> str:
        """Wait for a line that contains a text."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            while raw := await self.process.stdout.readline():
                self.lines.append(raw.decode().rstrip())
                if text in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"It ended without {text!r}: {self.lines}")

    async def stop(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def started(data: Path) -> AsyncIterator[Command]:
    """Run the command on free ports."""
    process = await asyncio.create_subprocess_exec(
        *(ROOT / "scripts/cluster", "--data", data, "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    command = Command(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            await command.stop()


def of(data: Path) -> dict[int, str]:
    """The processes that name the directory of a cluster, and their commands."""
    found = {}
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(data) in word or str(postgres_directory(data)) in word for word in words):
            found[int(place.parent.name)] = " ".join(words)
    return found


async def inverted(client: Client, number: int) -> None:
    task = await client.upload(photo(number), recipe="invert")
    assert (await client.wait(task.id, timeout=LIMIT)).state is State.FINISHED
    async with client.result(task.id) as answer:
        assert is_inverse(photo(number), await answer.read())


async def test_a_cluster_survives_kills_and_continues_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "cluster"
    try:
        async with started(data) as command:
            page = await command.line("The page is at")
            said = [line.split()[0] for line in command.lines]  # it may first say that it installs packages
            assert set(said[said.index("Starting;") + 1 : -1]) == {
                *("PostgreSQL", "etcd", "SeaweedFS", "keyvaluestore", "db", "storage", "master", "workers"),
            }
            masters = ",".join(re.findall(r"http://([0-9.:]+[0-9])", page))
            await command.line("Ctrl-C stops everything")
            async with Client.connect(masters) as client:
                await inverted(client, 1)
                victims = ("keyvaluestore-1", "db-1", "storage-1", "master-1", "worker-1")
                for number, victim in enumerate(victims, start=2):
                    (pid,) = [pid for pid, words in of(data).items() if f"/{victim} " in words]
                    os.kill(pid, signal.SIGKILL)
                    await inverted(client, number)
                    await command.line(f"{victim} has ended with status -9")
            for server in ("etcd", "weed", "postgres"):  # the stop must also be clean if these have ended
                os.kill(min(pid for pid, words in of(data).items() if Path(words.split()[0]).name == server), 9)
            assert await command.stop() == 0
        assert of(data) == {}
        async with started(data) as command:
            page = await command.line("The page is at")
            async with Client.connect(re.findall(r"http://([0-9.:]+[0-9])", page)[0]) as client:
                assert len((await client.tasks()).tasks) == 6
            assert await command.stop() == 0
    finally:
        shutil.rmtree(postgres_directory(data), ignore_errors=True)
