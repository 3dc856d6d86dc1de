"""Commands that pause and resume the queue."""

from __future__ import annotations

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import counted, out, print_json
from safelight.wire import Summary


async def pause_command(*, where: Where = HERE) -> None:
    """Pause the queue: no worker begins another task until `safelight resume`.

    What is being processed goes on, and photos are still accepted. The pause outlasts restarts.
    """
    async with master(where) as client:
        summary = await client.pause()
    _show(summary, where, "The queue is paused: {waiting}.")


async def resume_command(*, where: Where = HERE) -> None:
    """Resume the queue after `safelight pause`."""
    async with master(where) as client:
        summary = await client.resume()
    _show(summary, where, "The queue is running: {waiting}.")


def _show(summary: Summary, where: Where, sentence: str) -> None:
    if where.json:
        print_json(summary)
        return
    waiting = summary.tasks.get("waiting", 0)
    out.print(sentence.format(waiting=f"{counted(waiting, 'task')} {'waits' if waiting == 1 else 'wait'}"))
