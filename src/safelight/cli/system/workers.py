"""Workers: list, drain, resume."""

from __future__ import annotations

import asyncio

from safelight.cli import service_time
from safelight.cli.connection import HERE, Where, master
from safelight.cli.groups import commands
from safelight.cli.printing import counted, out, print_json, say, workers_table
from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import WorkerSeen

app = commands("workers")

_LOOK_EVERY = 0.5
_GONE_AFTER = 60.0
"""Seconds to wait for a silent worker: its leases have expired by then."""


@app.default
@app.command(name="list")
async def list_command(*, where: Where = HERE) -> None:
    """List the workers that were seen lately."""
    async with master(where) as client:
        summary = await client.summary()
    if where.json:
        print_json(summary.workers)
        return
    out.print(workers_table(summary))


@app.command(name="drain")
async def drain_command(worker: str, /, *, wait: bool = False, where: Where = HERE) -> None:
    """Drain a worker: it finishes the tasks that it holds and takes no more.

    Parameters
    ----------
    worker:
        The worker's id, or its name if no other worker has the same.
    wait:
        Wait until it is drained and can be stopped without delaying a photo.
    """
    async with master(where) as client:
        seen = await client.drain(await _find(client, worker))
        while wait and seen.holding and service_time.now() - seen.last_seen < _GONE_AFTER:
            await asyncio.sleep(_LOOK_EVERY)
            found = [each for each in (await client.summary()).workers if each.worker.id == seen.worker.id]
            if not found:
                break
            seen = found[0]
    if where.json:
        print_json(seen)
    elif seen.holding:
        say(f"{_called(seen)} takes no more tasks and finishes {counted(seen.holding, 'task')}.")
    else:
        say(f"{_called(seen)} is drained.")


@app.command(name="resume")
async def resume_command(worker: str, /, *, where: Where = HERE) -> None:
    """Let a drained worker take tasks again.

    Parameters
    ----------
    worker:
        The worker's id, or its name if no other worker has the same.
    """
    async with master(where) as client:
        seen = await client.resume_worker(await _find(client, worker))
    if where.json:
        print_json(seen)
    else:
        say(f"{_called(seen)} takes tasks again.")


async def _find(client: Client, worker: str) -> str:
    """Return the id of the worker with this id or name. Raises NOT_FOUND, CONFLICT.

    A tenant that does not see workers gets the master's answer, which says why.
    """
    summary = await client.summary()
    if summary.workers_hidden:
        return worker
    workers = summary.workers
    found = [seen for seen in workers if seen.worker.id == worker] or [
        seen for seen in workers if seen.worker.name == worker
    ]
    if not found:
        raise Error(Code.NOT_FOUND, f"There is no worker {worker}; `safelight workers` lists them.")
    if len(found) > 1:
        ids = ", ".join(seen.worker.id for seen in found)
        raise Error(Code.CONFLICT, f"{len(found)} workers are called {worker}; name one by its id: {ids}.")
    return found[0].worker.id


def _called(seen: WorkerSeen) -> str:
    return f"{seen.worker.name} ({seen.worker.id})" if seen.worker.name else seen.worker.id
