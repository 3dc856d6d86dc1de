"""Decide whether and when to restart a machine that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drumhead.machine.records import RestartPolicy

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before a restart. The delay doubles each time until the machine has run for STEADY seconds."""
STEADY = 60.0
MAX_RESTARTS = 10
"""The number of restarts in a row, without a steady run between them, after which a machine is given up."""


class Restarts:
    """The restarts of one machine. `total` counts all, `in_a_row` those since the last steady run."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.total = self.in_a_row = 0

    def after(self, *, failed: bool, ran: float) -> float | None:
        """Count an end of the machine after it ran for `ran` seconds.

        Return the number of seconds until its restart, or None if it is not restarted.
        """
        if self.policy == "no" or (self.policy == "on-failure" and not failed):
            return None
        if ran >= STEADY:
            self.in_a_row = 0
        if self.in_a_row == MAX_RESTARTS:
            return None
        delay = min(FIRST_DELAY * 2.0 ** min(self.in_a_row, MAX_RESTARTS), LONGEST_DELAY)
        self.in_a_row += 1
        self.total += 1
        return delay

    @property
    def exhausted(self) -> bool:
        """Whether the machine was restarted so often in a row that it will be given up."""
        return self.in_a_row == MAX_RESTARTS
