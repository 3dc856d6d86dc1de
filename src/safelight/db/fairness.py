"""Choose the tenants whose tasks are leased, by weighted turns, and whose webhooks are called.

This is stride scheduling. Each tenant has a *pass*, the virtual time of its next turn. The tenant with the lowest pass
is served, and its pass advances by 1 / weight. A tenant without waiting tasks saves nothing up: it starts again at the
current virtual time. So a tenant's first task after a pause is served within one turn of all others, however many tasks
they have.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from safelight.access.shares import share


class Share:
    """The service that one tenant has received."""

    def __init__(self) -> None:
        self.weight = 1.0
        self.next = 0.0
        """Its pass."""
        self.leases = 0
        """The number of tasks taken from it since the start."""


class Turns:
    """The service that all tenants have received since the start."""

    def __init__(self) -> None:
        self._now = 0.0
        self._shares: dict[str, Share] = {}

    def share(self, tenant: str) -> Share:
        """Return a tenant's share."""
        return self._shares.setdefault(tenant, Share())

    def choose(self, waiting: Mapping[str, int], n: int) -> list[str]:
        """Return the tenants of the next up to `n` turns, in order; `waiting` counts their available tasks."""
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
    """Return the numbers of up to `n` of the `due` webhook calls, each given as number, tenant and time.

    The caller has `n` places left, and `held` counts the calls of each tenant that it is already making. The tenant
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
    # If the tenant with the fewest has its share, the others have theirs too.
    while heap and len(chosen) < n and heap[0][0] < share(most, taken, heap[0][0]):
        theirs, place, tenant = heap[0]
        chosen.append(queues[tenant].popleft())
        taken += 1
        if queues[tenant]:
            heapreplace(heap, (theirs + 1, place, tenant))
        else:
            heappop(heap)
    return chosen
