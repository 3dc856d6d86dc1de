"""The command that confirms the clocks."""

from __future__ import annotations

from safelight.cli.connection import HERE, Where, master
from safelight.cli.printing import print_json, say


async def confirm_clock_command(*, where: Where = HERE) -> None:
    """Say that the clocks are right, so that what is old is deleted again.

    When a clock leaps, db and storage log a warning and delete nothing for a day. Look at the clocks of their machines
    first (date, timedatectl): what is old by them is deleted at once, by storage at its next collection. After another
    leap it takes another confirmation.
    """
    async with master(where) as client:
        confirmed = await client.confirm_clock()
    if where.json:
        print_json(confirmed)
    else:
        say("The clocks are confirmed. What is old is deleted.")
