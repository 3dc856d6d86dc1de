"""Test the master as a process: it uses constant memory, and a kill loses no acknowledged data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from safelight.client.master import Client
from support.leases import digest_of
from support.photos import photo
from support.programs.system import system

pytestmark = pytest.mark.slow

MIB = 1 << 20


def resident(pid: int) -> int:
    """Return the peak resident memory of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def test_a_huge_upload_in_constant_memory(tmp_path):
    settings = {"master": ["--max-photo", "1G"]}
    async with system(tmp_path, settings=settings) as running, Client.connect(running.master) as client:
        await client.upload(photo(1))
        pid = running.running["master"].process.pid
        before = resident(pid)
        start, piece = photo(2), bytes(MIB)

        async def huge() -> AsyncIterator[bytes]:
            yield start
            for _ in range(300):
                yield piece

        task = await client.upload(huge)
        assert task.input is not None
        assert task.input.size == len(start) + 300 * MIB
        async with client.original(task.id) as answer:
            received = 0
            async for chunk in answer.content.iter_any():
                received += len(chunk)
        assert received == task.input.size
        assert resident(pid) - before < 24 * MIB


async def test_killed_in_the_middle_of_uploads(tmp_path):
    """Every answered upload is a task with the right bytes; an unanswered upload can be repeated."""
    async with system(tmp_path) as running, Client.connect(running.master) as client:
        acknowledged: dict[int, str] = {}
        numbers = iter(range(10_000))
        ten = asyncio.Event()

        async def upload() -> None:
            for number in numbers:
                task = await client.upload(photo(number, width=64), idempotency_key=f"photo-{number}", batch="b")
                acknowledged[number] = task.id
                if len(acknowledged) % 10 == 0:
                    ten.set()

        uploads = [asyncio.create_task(upload()) for _ in range(8)]
        for _ in range(3):
            await asyncio.wait_for(ten.wait(), 30)
            await running.kill("master")
            ten.clear()
            await running.start("master")
        await asyncio.wait_for(ten.wait(), 30)
        for task in uploads:
            task.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
        await running.ready()
        for number, made in acknowledged.items():
            async with client.original(made) as answer:
                assert digest_of(await answer.read()) == digest_of(photo(number, width=64))
        await _no_doubles(client)


async def _no_doubles(client: Client) -> None:
    digests: list[str] = []
    before = None
    while True:
        page = await client.tasks(batch="b", before=before, limit=1000)
        digests += [task.input.digest for task in page.tasks if task.input is not None]
        before = page.next
        if before is None:
            break
    assert len(digests) == len(set(digests))


async def test_uploads_wait_while_db_is_away(tmp_path):
    async with system(tmp_path) as running, Client.connect(running.master) as client:
        await running.kill("db")
        assert not await client.is_ready()
        waiting = asyncio.create_task(client.upload(photo(1)))
        await running.start("db")
        task = await asyncio.wait_for(waiting, 30)
        assert await client.task(task.id) == task
