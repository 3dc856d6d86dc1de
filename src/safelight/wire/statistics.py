"""Statistics of a time span: counts of changes, processing times, reasons of failures, the slowest photos.

Counts of adjacent spans can be merged, and have a bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import nlargest
from typing import Protocol

import msgspec

from safelight.wire import ENDED, Failure, Record, State

_SHORTEST, _PER_DOUBLING, _BINS = 0.001, 4, 96
"""Processing times are counted in bins from 1 ms to 5 hours, four for each doubling: within 19 % of the true value."""
MOST_SLOWEST = 10
MOST_REASONS = 100
OTHER = "other"
"""The reason under which failures are counted when there are too many different reasons."""


class Happened(Protocol):
    """The fields of an event that are counted."""

    @property
    def kind(self) -> str:
        """What happened."""
        ...

    @property
    def state(self) -> State:
        """The state of the task afterwards."""
        ...

    @property
    def failure(self) -> Failure | None:
        """Why it failed."""
        ...

    @property
    def seconds(self) -> float:
        """The processing time."""
        ...


class Counts(msgspec.Struct, omit_defaults=True):
    """Counts of events. `change` is the change in the number of open tasks; `times` holds bins of processing times."""

    created: int = 0
    finished: int = 0
    failed: int = 0
    quarantined: int = 0
    deaths: int = 0
    change: int = 0
    times: dict[int, int] = {}
    reasons: dict[str, int] = {}
    slowest: list[tuple[float, str]] = []
    """The longest processing times and their tasks, longest first."""

    def add(self, event: Happened, task: str = "") -> None:
        """Count an event. If `task` is given, remember its time if it is one of the longest."""
        if event.kind == "leased":
            return
        self.created += event.kind == "created"
        self.deaths += event.kind in ("expired", "died")
        failed, quarantined = event.kind == "failed", event.state is State.QUARANTINED and event.kind != "deleted"
        self.failed += failed
        self.quarantined += quarantined
        if (failed or quarantined) and event.failure is not None:
            self._count_reason(event.failure.code, 1)
        self.change += _opens(event)
        if event.state is State.FINISHED and event.kind in ("finished", "created"):
            self.finished += 1
        if event.kind == "finished":
            place = min(int(math.log2(max(event.seconds, _SHORTEST) / _SHORTEST) * _PER_DOUBLING), _BINS - 1)
            self.times[place] = self.times.get(place, 0) + 1
            if task and (len(self.slowest) < MOST_SLOWEST or event.seconds > self.slowest[-1][0]):
                self._keep_slowest([(event.seconds, task)])

    def merge(self, other: Counts) -> None:
        """Add the counts of another span."""
        for name in ("created", "finished", "failed", "quarantined", "deaths", "change"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for place, count in other.times.items():
            self.times[place] = self.times.get(place, 0) + count
        for reason, count in other.reasons.items():
            self._count_reason(reason, count)
        self._keep_slowest(other.slowest)

    def percentile(self, part: float) -> float | None:
        """Return the processing time that this part of the tasks did not exceed, or None if there are none."""
        rank = part * sum(self.times.values())
        for place, count in sorted(self.times.items()):
            rank -= count
            if count and rank <= 0:
                return float(round(_SHORTEST * 2 ** ((place + 0.5) / _PER_DOUBLING), 4))
        return None

    def _count_reason(self, reason: str, count: int) -> None:
        name = reason if reason in self.reasons or len(self.reasons) < MOST_REASONS else OTHER
        self.reasons[name] = self.reasons.get(name, 0) + count

    def _keep_slowest(self, found: Iterable[tuple[float, str]]) -> None:
        if found:
            self.slowest = nlargest(MOST_SLOWEST, [*self.slowest, *found])


def _opens(event: Happened) -> int:
    """Return by how much an event changes the number of open tasks. That of a deletion has the state before it."""
    if event.kind == "created":
        return 0 if event.state in ENDED else 1
    if event.kind == "deleted":
        return 0 if event.state in ENDED else -1
    if event.kind in ("retried", "released"):
        return 1
    return -1 if event.state in ENDED and event.kind != "excused" else 0


class StatisticsSlot(Record, frozen=True, kw_only=True):
    """Statistics of the span that begins at `at` (Unix seconds)."""

    at: int
    counts: Counts
