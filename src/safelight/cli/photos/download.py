"""The command that downloads results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from safelight.cli.connection import HERE, Where, master
from safelight.cli.photos.results import ResultDirectory
from safelight.cli.printing import complain, path_text, print_json, say, status_of
from safelight.cli.tasks import find
from safelight.errors import Error


async def download_command(
    *id: str,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path(),
    only: Annotated[list[str] | None, Parameter(negative="")] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    wait: Annotated[bool, Parameter(negative="")] = False,
    where: Where = HERE,
) -> int:
    """Download the results of tasks.

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
    """
    if not id:
        complain("Name at least one task.")
        return 2
    directory = ResultDirectory(output, overwrite=overwrite)
    saved, status = await _save(id, directory, only or (), wait=wait, where=where)
    if where.json:
        print_json([path_text(path) for path in saved])
    return status


async def _save(
    ids: Sequence[str], directory: ResultDirectory, only: Sequence[str], *, wait: bool, where: Where
) -> tuple[list[Path], int]:
    """Save what each task has; return the files and the exit status. One task's trouble is not another's."""
    saved: list[Path] = []
    status = 0
    async with master(where) as client:
        for each in ids:
            try:
                task = await find(client, each)
                if wait:
                    task = await client.wait(task.id)
                paths, problem = await directory.save(client, task, only)
            except Error as error:
                paths, problem = [], error
            if problem is not None:
                complain(f"{each}: {problem.detail}")
                status = status_of(problem)
            saved += paths
            if not where.json:
                for path in paths:
                    say(str(path))
    return saved, status
