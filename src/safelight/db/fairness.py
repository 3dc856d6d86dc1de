"""Whose task is leased next, and whose webhook is called: tenants take turns, for tasks in proportion to their weights.

Stride scheduling. Each tenant has a *pass*, the virtual time at which it is served next; the lowest is served, and
moves on by 1 / weight. A tenant that had nothing waiting does not save up: it begins at the present virtual time. So a
tenant's first task after a pause is served within one turn of everybody else, however many tasks the others have.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from safelight.access.shares import share


class Share:
    """What one tenant was served."""

    def __init__(self) -> None:
        self.weight = 1.0
        self.next = 0.0
        """Its pass."""
        self.leases = 0
        """How many tasks were taken from it since the start."""


class Turns:
    """Who was served how much since the start."""

    def __init__(self) -> None:
        self._now = 0.0
        self._shares: dict[str, Share] = {}

    def share(self, tenant: str) -> Share:
        """Return a tenant's share."""
        return self._shares.setdefault(tenant, Share())

    def choose(self, waiting: Mapping[str, int], n: int) -> list[str]:
        """Return the tenants whose turn it is, in order, for up to `n` tasks of those that are `waiting`."""
        left = {tenant: count for tenant, count in waiting.items() if count > 0}
        if len(left) == 1:
            return self._choose_alone(left, n)
        heap = [(max(self.share(tenant).next, self._now), tenant) for tenant in left]
        heapify(heap)
        chosen: list[str] = []
        while heap and len(chosen) < n:
            at, tenant = heap[0]
            if not left[tenant]:
                heapreplace(heap, (float("inf"), tenant))
                if heap[0][0] == float("inf"):
                    break
                continue
            self._now = at
            share = self.share(tenant)
            share.next = at + 1 / share.weight
            left[tenant] -= 1
            chosen.append(tenant)
            heapreplace(heap, (share.next, tenant))
        return chosen

    def _choose_alone(self, left: Mapping[str, int], n: int) -> list[str]:
        ((tenant, count),) = left.items()
        taken = min(count, n)
        share = self.share(tenant)
        at = max(share.next, self._now)
        self._now = at + max(0, taken - 1) / share.weight
        share.next = at + taken / share.weight
        return [tenant] * taken


def choose_calls(due: Sequence[tuple[int, str, int]], n: int, held: Mapping[str, int]) -> list[int]:
    """Return the numbers of up to `n` webhook calls of those that are `due`: each has a number, a tenant and a time.

    Whoever makes them has `n` places left, and `held` says how many calls of each tenant it makes already. The tenant
    with the fewest comes first, and none gets more than its `share` of all places.
    """
    queues: dict[str, deque[int]] = {}
    for number, tenant, _ in sorted(due, key=lambda call: (call[2], call[0])):
        queues.setdefault(tenant, deque()).append(number)
    taken, counts = sum(held.values()), Counter(held)
    most = taken + n
    heap = [(counts[tenant], place, tenant) for place, tenant in enumerate(queues)]
    heapify(heap)
    chosen: list[int] = []
    # Where the one with the fewest has its share, the others have theirs.
    while heap and len(chosen) < n and heap[0][0] < share(most, taken, heap[0][0]):
        theirs, place, tenant = heap[0]
        chosen.append(queues[tenant].popleft())
        taken += 1
        if queues[tenant]:
            heapreplace(heap, (theirs + 1, place, tenant))
        else:
            heappop(heap)
    return chosen
