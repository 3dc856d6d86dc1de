"""Where the waiting tasks begin, so that claims read forward.

A claimed task leaves a dead row behind, and its entry in the index stays for as long as any transaction of the server
can still see it: while a dump runs, for hours. A claim that began at the head of the index would pass over all of them
each time. Therefore each instance keeps in mind up to where a lane has been claimed, and begins there. Numbers of tasks
only grow, so new tasks are always ahead; those that come back (returned, expired, retried) are kept by number.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from safelight.db.rows import TaskRow

Key = tuple[int, int]
"""A priority, and whether interactive: tasks of a tenant are leased by this, the highest first, and then by number."""


class Lane:
    """Tasks that are claimed in order of their numbers."""

    __slots__ = ("_back", "ahead", "last", "position")

    def __init__(self, position: int, last: int) -> None:
        self.position = position
        """No task below this waits but those that came back."""
        self.last = last
        """No task above this has been in the lane."""
        self.ahead: deque[TaskRow] = deque()
        """Rows that a claim has read for those that follow it in the same transaction."""
        self._back: list[int] = []

    def __bool__(self) -> bool:
        """Return whether a task may wait here."""
        return bool(self.ahead or self._back) or self.position <= self.last

    @property
    def behind(self) -> bool:
        """Whether a task that came back is older than those read ahead."""
        return bool(self._back) and (not self.ahead or self._back[0] < self.ahead[0].n)

    @property
    def first(self) -> int:
        """The lowest number of a task that may wait here."""
        ahead = [self.ahead[0].n] if self.ahead else []
        return min([self.position, *self._back[:1], *ahead])

    def begin_at(self, n: int) -> None:
        """Note that no task below a number waits here."""
        self.position = max(self.position, n)
        while self._back and self._back[0] < n:
            heappop(self._back)

    def give_back(self) -> None:
        """Let what was read ahead be read again."""
        while self.ahead:
            self.add(self.ahead.popleft().n)

    def add(self, n: int) -> None:
        """Note a task that waits now."""
        if n < self.position:
            heappush(self._back, n)
        self.last = max(self.last, n)

    def take_back(self, most: int) -> list[int]:
        """Take the lowest of the numbers that came back; they may wait no more."""
        taken: list[int] = []
        while self._back and len(taken) < most:
            n = heappop(self._back)
            if not taken or taken[-1] != n:
                taken.append(n)
        return taken

    def passed(self, found: list[int], wanted: int) -> None:
        """Note what a claim found from `position` on when it asked for so many."""
        self.position = found[-1] + 1 if len(found) == wanted else self.last + 1


class Lanes:
    """The lanes of one tenant: by priority, those for classic workers, and one of all by age."""

    def __init__(self) -> None:
        self.by_priority: dict[Key, Lane] = {}
        self.classic: dict[Key, Lane] = {}
        self.by_age = Lane(0, 0)

    def add(self, key: Key, n: int, *, classic: bool) -> None:
        """Note a task that waits now."""
        for lanes in (self.by_priority, self.classic) if classic else (self.by_priority,):
            lane = lanes.get(key)
            if lane is None:
                lane = lanes[key] = Lane(n, n)
            lane.add(n)
        self.by_age.add(n)
