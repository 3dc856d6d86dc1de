"""Commands that show the queue and tasks."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.types import NonNegativeInt
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import (
    STATE_STYLE,
    ago,
    counted,
    duration,
    out,
    print_json,
    reason,
    size,
    state_text,
    table,
    workers_table,
)
from safelight.cli.system.storage_use import room, storage_use
from safelight.cli.tasks.which import ANY, Which, find
from safelight.wire import State, Summary, Task


async def status_command(*, where: Where = HERE) -> None:
    """Show the queue and the workers."""
    async with master(where) as client:
        summary = await client.summary()
        storage = await storage_use(client)
    if where.json:
        print_json(msgspec.to_builtins(summary) | {"storage": storage})
        return
    out.print(counts_table(summary))
    if summary.paused:
        out.print(f"[yellow]The queue is paused[/yellow] (began {ago(summary.paused)}); `safelight resume` resumes it.")
    for recipe, since in sorted(summary.paused_recipes.items()):
        out.print(
            f"[yellow]The recipe {escape(recipe)} is paused[/yellow] (began {ago(since)}); "
            f"`safelight resume --recipe {escape(recipe)}` resumes it."
        )
    if summary.delayed:
        out.print(f"{summary.delayed:,} of the waiting tasks are delayed until their next attempt.")
    if summary.available:
        out.print(f"The oldest waiting task has waited for {duration(summary.oldest_waiting)}.")
    out.print(f"Photos and results take {size(summary.bytes)}{room(storage, '; ')}.", highlight=False)
    out.print()
    out.print(workers_table(summary))


def counts_table(summary: Summary) -> Table:
    """Make a table of the number of tasks in each state."""
    return table(
        "TASKS",
        "",
        rows=[(state_text(state), f"{summary.tasks.get(state.name.lower(), 0):,}") for state in STATE_STYLE],
        right=("",),
    )


async def tasks_command(
    *,
    which: Which = ANY,
    limit: Annotated[NonNegativeInt, Parameter(name=["--limit", "-l"])] = 30,
    where: Where = HERE,
) -> None:
    """List tasks, newest first: all, or those that match every filter given.

    Parameters
    ----------
    limit:
        How many tasks to list at most; 0 lists all.
    """
    found: list[Task] = []
    before: str | None = None
    async with master(where) as client:
        asked = await which.filter(client)
        while True:
            room = limit - len(found) if limit else 1000
            page = await client.find(asked.page(before=before, limit=min(room, 1000)))
            found += page.tasks
            before = page.next
            if before is None or (limit and len(found) >= limit):
                break
    if where.json:
        print_json(found)
        return
    out.print(tasks_table(found) if found else "No tasks.")
    if before is not None:
        out.print("[dim]There are more; --limit N shows more.[/dim]")


def tasks_table(tasks: list[Task]) -> Table:
    """Make a table of tasks."""
    rows = [
        (
            task.id,
            task.filename,
            task.recipe,
            state_text(task.state),
            str(task.attempts),
            ago(task.changed),
            reason(task),
        )
        for task in tasks
    ]
    return table("TASK", "PHOTO", "RECIPE", "STATE", "ATTEMPTS", "CHANGED", "WHY", rows=rows, right=("ATTEMPTS",))


async def task_command(
    id: str, /, *, wait: Annotated[bool, Parameter(negative="")] = False, where: Where = HERE
) -> int:
    """Show one task.

    Parameters
    ----------
    id:
        The id of the task, or the number that it begins with.
    wait:
        Wait until the task has ended; the exit status then says whether it finished.
    """
    async with master(where) as client:
        task = await find(client, id)
        if wait:
            task = await client.wait(task.id)
    if where.json:
        print_json(task)
    else:
        print_task(task)
    return 1 if wait and task.state is not State.FINISHED else 0


def print_task(task: Task) -> None:
    """Print everything that is known about a task."""
    facts: list[tuple[str, str | Text]] = [
        ("task", task.id),
        ("photo", task.filename + (f" ({size(task.input.size)}, {task.media_type})" if task.input else "")),
        ("recipe", task.recipe),
        ("state", state_text(task.state)),
        ("why", reason(task)),
        ("created", ago(task.created)),
        ("changed", ago(task.changed)),
        ("attempts", f"{task.attempts} ({counted(task.errors, 'error')}, {counted(task.deaths, 'death')})"),
        ("took", duration(task.seconds) if task.seconds else ""),
        ("engine", task.engine),
        ("batch", task.batch),
        ("note", " ".join(dict.fromkeys(note for output in task.outputs for note in output.notes))),
    ]
    out.print(table("", "", rows=[(name, value) for name, value in facts if str(value)]))
    if task.outputs:
        rows = [
            (
                each.name,
                each.media_type,
                f"{each.width} x {each.height}",
                str(each.frames),
                size(each.size),
                each.digest,
            )
            for each in task.outputs
        ]
        out.print()
        out.print(table("OUTPUT", "TYPE", "PIXELS", "FRAMES", "SIZE", "SHA-256", rows=rows, right=("FRAMES", "SIZE")))
