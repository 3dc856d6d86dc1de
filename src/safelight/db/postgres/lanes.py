"""Remember where the waiting tasks begin, so that claims read forward.

A claimed task leaves a dead row behind, and its index entry stays as long as any transaction of the server can still
see it: for hours while a dump runs. A claim from the head of the index would pass over all dead entries each time.
Therefore each instance remembers up to where a lane was claimed, and continues there. Task numbers only grow, so new
tasks are always ahead; tasks that come back (returned, expired, retried) are remembered by number.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from safelight.db.rows import TaskRow

Key = tuple[int, int]
"""A priority, and whether interactive: tasks of a tenant are leased by this key, highest first, and then by number."""


class Lane:
    """Tasks that are claimed in order of their numbers."""

    __slots__ = ("_back", "ahead", "last", "position")

    def __init__(self, position: int, last: int) -> None:
        self.position = position
        """Below this number, only tasks that came back wait."""
        self.last = last
        """Above this number, no task has been in the lane."""
        self.ahead: deque[TaskRow] = deque()
        """Rows that a claim has read ahead for later claims in the same transaction."""
        self._back: list[int] = []

    def __bool__(self) -> bool:
        """Return whether a task may wait in the lane."""
        return bool(self.ahead or self._back) or self.position <= self.last

    @property
    def behind(self) -> bool:
        """Whether a task that came back is older than the rows read ahead."""
        return bool(self._back) and (not self.ahead or self._back[0] < self.ahead[0].n)

    @property
    def first(self) -> int:
        """The lowest number of a task that may wait here."""
        ahead = [self.ahead[0].n] if self.ahead else []
        return min([self.position, *self._back[:1], *ahead])

    def begin_at(self, n: int) -> None:
        """Record that no task below a number waits in the lane."""
        self.position = max(self.position, n)
        while self._back and self._back[0] < n:
            heappop(self._back)

    def give_back(self) -> None:
        """Let rows that were read ahead be read again."""
        while self.ahead:
            self.add(self.ahead.popleft().n)

    def add(self, n: int) -> None:
        """Record a task that waits now."""
        if n < self.position:
            heappush(self._back, n)
        self.last = max(self.last, n)

    def take_back(self, most: int) -> list[int]:
        """Remove and return the lowest numbers that came back; they may no longer wait."""
        taken: list[int] = []
        while self._back and len(taken) < most:
            n = heappop(self._back)
            if not taken or taken[-1] != n:
                taken.append(n)
        return taken

    def passed(self, found: list[TaskRow], unwritten: list[TaskRow], wanted: int) -> list[TaskRow]:
        """Record the rows that a claim found from `position` on, of as many as it wanted; return them in order.

        Those that are not written yet are among them, as far as the claim has read.
        """
        whole = len(found) < wanted
        self.position = self.last + 1 if whole else found[-1].n + 1
        if not unwritten:
            return found
        rows = {row.n: row for row in found} | {row.n: row for row in unwritten if row.n < self.position}
        return [rows[n] for n in sorted(rows)]


class Lanes:
    """The lanes of one tenant: by priority, those for classic workers, and one of all by age."""

    def __init__(self) -> None:
        self.by_priority: dict[Key, Lane] = {}
        self.classic: dict[Key, Lane] = {}
        self.by_age = Lane(0, 0)

    def add(self, key: Key, n: int, *, classic: bool) -> None:
        """Record a task that waits now."""
        for lanes in (self.by_priority, self.classic) if classic else (self.by_priority,):
            lane = lanes.get(key)
            if lane is None:
                lane = lanes[key] = Lane(n, n)
            lane.add(n)
        self.by_age.add(n)
