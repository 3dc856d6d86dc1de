"""Make photos that take a known time to process, and follow their tasks."""

import asyncio
from pathlib import Path

import aiohttp

from safelight.client.master import Client
from safelight.wire import Task
from support.photos import photo
from support.programs.processes import Program

# AV1 with the greatest effort: about 1 s and about 8 s on one core.
SLOW = {"outputs": {"image": {"format": "avif", "effort": 10}}}
WHILE, LONG = 200, 600


async def slow(client: Client, number: int, width: int = WHILE) -> Task:
    return await client.upload(photo(number, width=width), filename=f"{number}.png", recipe=SLOW)


async def kinds(client: Client, task: Task) -> list[str]:
    """Return the kinds of a task's events in order."""
    return [event.kind for event in (await client.changes(0, task=task.id)).events]


async def happened(client: Client, task: Task, kind: str) -> None:
    """Wait until an event of this kind has happened to a task."""
    async with asyncio.timeout(60):
        after = 0
        while kind not in await kinds(client, task):
            after = (await client.changes(after, wait=20.0, task=task.id)).last


async def leased(client: Client, task: Task) -> None:
    """Wait until a worker has leased a task."""
    await happened(client, task, "leased")


async def begun(worker: Program, task: Task) -> None:
    """Wait until a worker decodes a task."""
    await worker.log(lambda line: line.get("task") == task.id and "processing" in line["message"])


async def metrics(worker: Program) -> str:
    async with aiohttp.ClientSession() as http, http.get(await worker.address() + "/metrics") as response:
        return await response.text()


def blob(data: Path, digest: str) -> Path:
    """Return the file in which storage keeps a blob."""
    return next(path for path in data.rglob(f"*{digest[-20:]}*") if path.is_file())
