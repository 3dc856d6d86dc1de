"""The command that downloads results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from safelight.cli.connection import HERE, Where, master
from safelight.cli.photos.results import ResultDirectory
from safelight.cli.printing import complain, counted, err, path_text, print_json, say
from safelight.cli.tasks.which import ANY, OPEN, PARTLY_COUNTED, Which, check, find, find_all, matching
from safelight.client.master import Client
from safelight.errors import Error, status_of
from safelight.wire import State

_AT_ONCE = 50
"""How many tasks are read at once; of these, a few are downloaded at a time."""


async def download_command(
    *id: str,
    which: Which = ANY,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path(),
    only: Annotated[list[str] | None, Parameter(negative="")] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    wait: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    where: Where = HERE,
) -> int:
    """Download the results of the named tasks, or of all finished ones that match.

    Parameters
    ----------
    id:
        The ids of the tasks, or the numbers that they begin with.
    output:
        The directory to save the results in.
    only:
        Download only this output of the recipe; repeatable.
    overwrite:
        Replace files of the same name; otherwise results get names that are free.
    wait:
        Wait for tasks that have not ended.
    dry_run:
        Only show what would be downloaded.
    """
    if wrong := check(id, which):
        complain(wrong)
        return 2
    saving = _Saving(ResultDirectory(output, overwrite=overwrite), only or (), wait=wait, quiet=where.json)
    async with master(where) as client:
        await (_named(client, id, saving, dry_run=dry_run) if id else _matching(client, which, saving, dry_run=dry_run))
    if where.json and not dry_run:
        print_json([path_text(path) for path in saving.saved])
    return saving.status


async def _named(client: Client, ids: Sequence[str], saving: _Saving, *, dry_run: bool) -> None:
    """Save the results of the named tasks, or preview them."""
    if dry_run:
        tasks = await find_all(client, ids)
        _preview(sum(task.state in saving.states for task in tasks), complete=True, json=saving.quiet)
        return
    for each in dict.fromkeys(ids):
        await saving.save(client, each)


async def _matching(client: Client, which: Which, saving: _Saving, *, dry_run: bool) -> None:
    """Save the results of all tasks that match, or only print how many there are."""
    wanted = [state for state in saving.states if state in (which.states() or saving.states)]
    if not wanted:
        if dry_run or not saving.quiet:
            _preview(0, complete=True, json=saving.quiet)
        return
    states = ",".join(state.name.lower() for state in wanted)
    asked = msgspec.structs.replace(await which.filter(client), state=states)
    counts = await client.count(asked)
    total = sum(counts.states.get(state.name.lower(), 0) for state in wanted)
    if dry_run or not saving.quiet:
        _preview(total, complete=counts.complete, json=saving.quiet)
    if dry_run:
        return
    window: list[str] = []
    async for task in matching(client, asked):
        window.append(task.id)
        if len(window) == _AT_ONCE:
            await asyncio.gather(*(saving.save(client, each) for each in window))
            window.clear()
    await asyncio.gather(*(saving.save(client, each) for each in window))


def _preview(total: int, *, complete: bool, json: bool) -> None:
    """Print the results of how many tasks will be downloaded; unless it is complete, older tasks were not counted."""
    if json:
        print_json({"would_download": total, "complete": complete})
        return
    least = "" if complete else "at least "
    if total:
        err.print(f"download the results of {least}{counted(total, 'task')}")
    elif complete:
        err.print("No task with results matches.")
    else:
        err.print("download the results of every task that matches")
    if not complete:
        err.print(PARTLY_COUNTED)


class _Saving:
    """Saves the results of each task. The failure of one task does not affect the others."""

    def __init__(self, directory: ResultDirectory, only: Sequence[str], *, wait: bool, quiet: bool) -> None:
        self._directory = directory
        self._only = only
        self.wait = wait
        self.states = (*OPEN, State.FINISHED) if wait else (State.FINISHED,)
        self.quiet = quiet
        self.saved: list[Path] = []
        self.status = 0

    async def save(self, client: Client, id: str) -> None:
        """Save the results of one task, and print the paths."""
        try:
            task = await find(client, id)
            if self.wait:
                task = await client.wait(task.id)
            paths, problem = await self._directory.save(client, task, self._only)
        except Error as error:
            paths, problem = [], error
        if problem is not None:
            complain(f"{id}: {problem.detail}")
            self.status = status_of(problem)
        self.saved += paths
        if not self.quiet:
            for path in paths:
                say(str(path))
