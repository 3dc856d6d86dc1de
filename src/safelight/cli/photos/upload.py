"""The command that uploads photos and waits for their results."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from cyclopts.types import PositiveInt

from safelight.cli.connection import HERE, Where, master
from safelight.cli.photos.batch import Batch, Entry, Options
from safelight.cli.photos.paths import Photo, collect
from safelight.cli.photos.progress import Progress
from safelight.cli.photos.results import ResultDirectory
from safelight.cli.printing import complain, counted, duration, err, out, print_json, say, size, table
from safelight.cli.recipe_files import recipe_argument
from safelight.cli.recipes import USUAL

_RETRY_FOR = 30.0
"""Seconds for which an upload is sent again after transient failures."""


async def upload_command(
    *path: Path,
    recipe: Annotated[str, Parameter(name=["--recipe", "-r"])] = USUAL,
    n: Annotated[PositiveInt, Parameter(name=["-n", "--times"])] = 1,
    wait: Annotated[bool, Parameter(name=["--wait", "-w"], negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    priority: Annotated[int, Parameter(validator=validators.Number(gte=-100, lte=100))] = 0,
    at_once: PositiveInt = 8,
    where: Where = HERE,
) -> int:
    """Upload photos. With --wait or --output, wait for their results.

    Parameters
    ----------
    path:
        Photos, and directories, of which everything that looks like a photo is uploaded.
    recipe:
        The name of a recipe (see `safelight recipes list`), or a file: FILE.toml, FILE.toml:NAME or FILE.json.
    n:
        How many times to upload each photo.
    wait:
        Wait until every photo is processed.
    output:
        Save the results in this directory as they finish.
    overwrite:
        Replace files of the same name; otherwise results get names that are free.
    priority:
        The priority, -100 to 100; higher ones are processed first.
    at_once:
        How many photos to upload at the same time.
    """
    if not path:
        complain("Name at least one photo or directory.")
        return 2
    directory = await _prepared(output, overwrite=overwrite)
    waits = wait or directory is not None
    options = Options(recipe=recipe_argument(recipe), priority=priority, directory=directory, waits=waits)
    return await _upload(collect(path) * n, options, at_once, where)


async def _prepared(output: Path | None, *, overwrite: bool) -> ResultDirectory | None:
    """Check that results can be saved, before photos are uploaded, which would be processed in any case."""
    if output is None:
        return None
    directory = ResultDirectory(output, overwrite=overwrite)
    await asyncio.to_thread(directory.prepare)
    return directory


async def _upload(photos: list[Photo], options: Options, at_once: int, where: Where) -> int:
    """Upload a batch, show its progress and outcome, and return the exit status."""
    total = sum(photo.size for photo in photos)
    with Progress(photos=len(photos), size=total, waits=options.waits, quiet=where.json) as progress:
        async with master(where, retry_for=_RETRY_FOR) as client:
            batch = Batch(client, photos, options, progress)
            try:
                await batch.run(at_once=at_once)
            except asyncio.CancelledError:
                progress.end()
                complain(f"Stopped. Uploaded photos will still be processed: safelight tasks --batch {batch.name}")
                raise
            finally:
                progress.end()
                if where.json:
                    print_json(batch.report())
                else:
                    _print(batch, progress.seconds)
    return 0 if all(entry.good for entry in batch.entries) else 1


def _print(batch: Batch, seconds: float) -> None:
    uploaded = [entry for entry in batch.entries if entry.task is not None]
    sent = size(sum(entry.photo.size for entry in uploaded))
    if len(batch.entries) == 1 and uploaded and not batch.waits:
        say(f"{uploaded[0].photo.path} is task {uploaded[0].task.id}")  # type: ignore[union-attr]
    elif uploaded:
        out.print(f"Uploaded {counted(len(uploaded), 'photo')} ({sent}) as batch {batch.name}.", soft_wrap=True)
    if batch.waits and uploaded:
        done = sum(entry.finished for entry in batch.entries)
        out.print(f"{counted(done, 'photo')} finished in {duration(seconds)}.")
    bad = [entry for entry in batch.entries if entry.problem]
    if bad:
        err.print(f"[red]{counted(len(bad), 'photo')} failed:[/red]")
        err.print(table("PHOTO", "TASK", "WHY", rows=[_row(entry) for entry in bad], wrap=True))


def _row(entry: Entry) -> tuple[str, str, str]:
    return str(entry.photo.path), entry.task.id if entry.task else "", entry.problem
