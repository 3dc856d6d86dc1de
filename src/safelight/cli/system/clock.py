"""The command that confirms the clocks."""

from __future__ import annotations

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import print_json, say


async def confirm_clock_command(*, where: Where = HERE) -> None:
    """Confirm that the clocks are right, so that old data is deleted again.

    When a clock jumps, db and storage log a warning and delete nothing for a day, or for the length of a longer jump
    ahead. Check the clocks of their machines first (date, timedatectl): db deletes everything that is old by its clock
    at once, storage at its next collection. Another jump needs another confirmation.
    """
    async with master(where) as client:
        confirmed = await client.confirm_clock()
    if where.json:
        print_json(confirmed)
    else:
        say("The clocks are confirmed. Old data is deleted again.")
