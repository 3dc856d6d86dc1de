"""Test programs without memory: they refuse with a message or end; no data is lost and no task is charged."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from faults.uploading import upload
from safelight.client.master import Client
from safelight.wire import State
from support.programs.system import system
from support.programs.until import until

pytestmark = pytest.mark.slow

VICTIMS = ("storage", "db", "master", "keyvaluestore", "worker-0")
"""Storage comes first: before its first photo, it has no freed memory that would be enough for the uploads."""
UPLOADS = 6
WITHOUT = 4.0
"""Seconds for which a program has no memory, unless all uploads are answered earlier."""
SETTINGS = {"worker": ["--slots", "1"], "db": ["--max-errors", "1", "--max-deaths", "1"]}
"""Settings with which a single error or death ends a task."""


def taken(pid: int) -> int:
    """Return the size of a process's address space in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def lacks(line: dict[str, object]) -> bool:
    return "MemoryError" in str(line) or "no memory left" in str(line)


async def is_uploaded(http: aiohttp.ClientSession, master: str, number: int) -> bool:
    """Upload a photo; return whether it was acknowledged."""
    try:
        return (await upload(http, master, number)).status == 200
    except aiohttp.ClientError:  # a kept connection that the program has closed
        return False


async def test_a_program_without_memory_refuses_and_recovers(tmp_path: Path) -> None:
    without, kept = set[str](), list[str]()
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(system(tmp_path, workers=1, settings=SETTINGS))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        client = await stack.enter_async_context(Client.connect(whole.master))
        for number, victim in enumerate(VICTIMS):
            program = whole.running[victim]
            pid = program.process.pid
            before, begun = resource.prlimit(pid, resource.RLIMIT_AS), len(program.lines)
            resource.prlimit(pid, resource.RLIMIT_AS, (taken(pid), before[1]))
            numbers = range(UPLOADS * number, UPLOADS * (number + 1))
            sending = (upload(http, whole.master, n, width=540, kind="TIFF") for n in numbers)
            sent = [asyncio.create_task(each) for each in sending]
            await asyncio.wait(sent, timeout=WITHOUT)
            if program.running:
                resource.prlimit(pid, resource.RLIMIT_AS, before)
            else:
                await whole.start(victim)  # a supervisor would restart it
            async with asyncio.timeout(90):
                answers = await asyncio.gather(*sent, return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    assert isinstance(answer, aiohttp.ClientError), answer  # the connection was closed
                    continue
                assert answer.status == 200 or answer.is_refusal, (victim, answer)
                if answer.status == 200:
                    kept.append(answer.document["id"])

            await until(partial(is_uploaded, http, whole.master, 1000 + number), timeout=60)
            if any(lacks(line) for line in program.lines[begun:]) or program is not whole.running[victim]:
                without.add(victim)
        assert "storage" in without, "it did not run out of memory, so this test shows nothing"
        for task in kept:
            done = await client.wait(task, timeout=60)
            assert (done.state, done.errors, done.deaths) == (State.FINISHED, 0, 0), done
