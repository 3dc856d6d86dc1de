"""Commands that pause and resume the queue, or one recipe."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import counted, out, print_json
from safelight.client.master import Client
from safelight.wire import Summary, TaskFilter

_Recipe = Annotated[str | None, Parameter(name=["--recipe", "-r"])]


async def pause_command(*, recipe: _Recipe = None, where: Where = HERE) -> None:
    """Pause the queue, or one recipe: workers begin none of its tasks until `safelight resume`.

    Tasks in progress continue, and photos are still accepted. The pause outlasts restarts.

    Parameters
    ----------
    recipe:
        Pause only the tasks of this recipe.
    """
    async with master(where) as client:
        summary = await (client.pause() if recipe is None else client.pause_recipe(recipe))
        await _show(client, summary, where, recipe, "paused")


async def resume_command(*, recipe: _Recipe = None, where: Where = HERE) -> None:
    """Resume the queue after `safelight pause`, or one recipe after `safelight pause --recipe`.

    Parameters
    ----------
    recipe:
        Resume this recipe.
    """
    async with master(where) as client:
        summary = await (client.resume() if recipe is None else client.resume_recipe(recipe))
        await _show(client, summary, where, recipe, "running")


async def _show(client: Client, summary: Summary, where: Where, recipe: str | None, state: str) -> None:
    if where.json:
        print_json(summary)
        return
    waiting, complete = summary.tasks.get("waiting", 0), True
    if recipe is not None:
        counts = await client.count(TaskFilter(state="waiting", recipe=recipe))
        waiting, complete = counts.total, counts.complete
    what = "The queue" if recipe is None else f"The recipe {recipe}"
    wait = f"{'' if complete else 'at least '}{counted(waiting, 'task')} {'waits' if waiting == 1 else 'wait'}"
    out.print(f"{what} is {state}{f': {wait}' if waiting or complete else ''}.", highlight=False)
